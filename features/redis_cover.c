/* A Redis server as the cover of cached records: see redis_cover.h. */
#include "features/redis_cover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "features/redis_invalidation.h"

struct hr_redis_cover {
    hr_record_cache *cache;
    const hr_feast_options *feast; /* NULL: keys are by prefix */
    hr_redis_invalidation *invalidation;
    const char *name;
    int source;                    /* of the cache's covers; -1: it has too many */
    hr_cover now;                  /* 0: none */
    bool told_that_lost;           /* by the log */
    char head[HR_FEAST_HEAD_SIZE]; /* of every record's key: "{prefix}:", or what Feast's have in common */
    size_t head_nbytes;
};
_Static_assert(HR_FEAST_HEAD_SIZE >= HR_STORE_PREFIX_SIZE + 1, "a prefix must fit");

static void feast_key_changed(const hr_redis_cover *cover, const char *key, size_t nbytes) {
    for (hr_entity entity = HR_ENTITY_USER; entity <= HR_ENTITY_ITEM; entity++) {
        char decimal[24];
        size_t id_nbytes;
        const char *id = hr_feast_key_id(cover->feast, entity, key, nbytes, decimal, &id_nbytes);
        if (id != NULL) hr_record_cache_forget(cover->cache, entity, id, id_nbytes, hr_clock_ns());
    }
}

/* {prefix}:{entity}:{id}; other keys of the prefix are nobody's record. */
static void key_changed(void *context, const char *key, size_t nbytes) {
    const hr_redis_cover *cover = context;
    const size_t n_head = cover->head_nbytes;
    if (cover->feast != NULL) {
        feast_key_changed(cover, key, nbytes);
        return;
    }
    if (nbytes < n_head || memcmp(key, cover->head, n_head) != 0) return;
    for (hr_entity entity = HR_ENTITY_USER; entity <= HR_ENTITY_ITEM; entity++) {
        const char *name = hr_entity__name(entity), *rest = key + n_head;
        const size_t n_name = strlen(name), n_rest = nbytes - n_head;
        if (n_rest <= n_name || memcmp(rest, name, n_name) != 0 || rest[n_name] != ':') continue;
        hr_record_cache_forget(cover->cache, entity, rest + n_name + 1, n_rest - n_name - 1, hr_clock_ns());
    }
}

static void end(hr_redis_cover *cover) {
    if (cover->now == 0) return;
    cover->now = 0;
    hr_cache_cover_end(hr_record_cache_covers(cover->cache), cover->source, hr_clock_ns());
}

static void all_changed(void *context) {
    hr_redis_cover *cover = context;
    end(cover);
    cover->now = hr_cache_cover_begin(hr_record_cache_covers(cover->cache), cover->source);
}

static void covered(void *context, bool is_covered, const char *reason) {
    hr_redis_cover *cover = context;
    const hr_log_field server = HR_LOG_STR("server", cover->name);
    if (is_covered) {
        cover->now = hr_cache_cover_begin(hr_record_cache_covers(cover->cache), cover->source);
        cover->told_that_lost = false;
        hr_log(HR_LOG_INFO, "redis tells of changed records: they are cached", server);
        return;
    }
    end(cover);
    if (!cover->told_that_lost)
        hr_log(HR_LOG_WARN, "redis cannot tell of changed records: they are not cached", server,
               HR_LOG_STR("reason", reason));
    cover->told_that_lost = true;
}

static void init_head(hr_redis_cover *cover, const hr_store_uri *uri) {
    if (uri->layout != HR_LAYOUT_FEAST) {
        cover->head_nbytes = (size_t)snprintf(cover->head, sizeof cover->head, "%s:", uri->prefix);
        return;
    }
    char other[HR_FEAST_HEAD_SIZE];
    const size_t n = hr_feast_key_head(&uri->feast, HR_ENTITY_USER, cover->head);
    const size_t n_other = hr_feast_key_head(&uri->feast, HR_ENTITY_ITEM, other);
    cover->feast = &uri->feast;
    while (cover->head_nbytes < n && cover->head_nbytes < n_other &&
           cover->head[cover->head_nbytes] == other[cover->head_nbytes])
        cover->head_nbytes++;
}

hr_redis_cover *hr_redis_cover_create(uv_loop_t *loop, const hr_redis_server *server, const hr_store_uri *uri,
                                      const char *name, uint32_t heartbeat_ms, hr_record_cache *cache) {
    hr_redis_cover *cover = calloc(1, sizeof *cover);
    if (cover == NULL) return NULL;
    cover->cache = cache;
    cover->name = name;
    init_head(cover, uri);
    cover->source = hr_cache_source_open(hr_record_cache_covers(cache));
    if (cover->source < 0) return cover; /* a cover that never is */
    const hr_redis_invalidation_listener listener = {cover, covered, key_changed, all_changed};
    cover->invalidation =
        hr_redis_invalidation_create(loop, server, cover->head, cover->head_nbytes, heartbeat_ms, listener);
    if (cover->invalidation != NULL) return cover;
    hr_redis_cover_close(cover);
    return NULL;
}

void hr_redis_cover_renew(hr_redis_cover *cover) {
    if (cover != NULL && cover->now != 0) all_changed(cover);
}

void hr_redis_cover_close(hr_redis_cover *cover) {
    if (cover == NULL) return;
    hr_cache_source_close(hr_record_cache_covers(cover->cache), cover->source, hr_clock_ns());
    hr_redis_invalidation_close(cover->invalidation);
    free(cover);
}

hr_cover hr_redis_cover_now(const hr_redis_cover *cover) {
    return cover == NULL ? 0 : cover->now;
}
