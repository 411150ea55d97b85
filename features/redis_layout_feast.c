/* The layout feast: see redis_layout.h and feast_key.h.
 *
 * A record is the hash of its entity key: the schema's fields by their hashes and, where an age is set, the
 * times of the views that they are of. Both are made once for a fetch.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "features/feast_value.h"
#include "features/redis_layout.h"

static const char time_head[] = "_ts:";

/* What is asked of an entity's records, in the fetch's arena. */
typedef struct feast_fields {
    size_t n_fields, n_views;                /* n_views 0: any age will do */
    uint8_t (*names)[HR_FEAST_FIELD_NBYTES]; /* (n_fields) */
    uint32_t *view_of;                       /* (n_fields) */
    hr_field_text *times;                    /* (n_views) "_ts:VIEW" */
} feast_fields;

typedef struct feast_plan {
    feast_fields of[2];
    int64_t oldest; /* seconds since 1970: a view of before is too old */
} feast_plan;

/* The number of a field's view; a new one where it is the first of it. False where the arena is full. */
static bool find_view(const hr_feast_options *feast, hr_entity entity, const char *field, hr_arena *arena,
                      feast_fields *to, uint32_t *number) {
    size_t n;
    const char *view = hr_feast_view(feast, entity, field, &n);
    const size_t n_head = sizeof time_head - 1;
    for (*number = 0; *number < to->n_views; ++*number) {
        const hr_field_text *time = &to->times[*number];
        if (time->nbytes == n_head + n && memcmp(time->text + n_head, view, n) == 0) return true;
    }
    char *text = hr_arena_alloc(arena, n_head + n);
    if (text == NULL) return false;
    memcpy(text, time_head, n_head);
    memcpy(text + n_head, view, n);
    to->times[to->n_views++] = (hr_field_text){text, n_head + n};
    return true;
}

static bool plan_fields(const hr_feast_options *feast, hr_entity entity, const hr_field_list *fields,
                        hr_arena *arena, feast_fields *to) {
    if (fields == NULL) return true;
    to->n_fields = fields->n_names;
    to->names = hr_arena_calloc(arena, to->n_fields, sizeof *to->names);
    to->view_of = hr_arena_calloc(arena, to->n_fields, sizeof *to->view_of);
    to->times = hr_arena_calloc(arena, to->n_fields, sizeof *to->times);
    bool whole = to->names != NULL && to->view_of != NULL && to->times != NULL;
    for (size_t f = 0; whole && f < to->n_fields; f++) {
        whole = hr_feast_field(feast, entity, fields->names[f], arena, to->names[f]);
        if (whole && feast->max_age_s > 0)
            whole = find_view(feast, entity, fields->names[f], arena, to, &to->view_of[f]);
    }
    return whole;
}

/* Room for the longest key of the fetch. */
static bool reserve_key(hr_redis_keys *keys, hr_fetch *fetch) {
    size_t longest = 0, n_records = hr_fetch__count(fetch);
    for (size_t i = 0; i < n_records; i++) {
        const size_t n = strlen(hr_fetch__slot(fetch, i).id);
        if (n > longest) longest = n;
    }
    if (longest + HR_FEAST_KEY_EXTRA <= keys->room_nbytes) return true;
    char *room = realloc(keys->room, 2 * (longest + HR_FEAST_KEY_EXTRA));
    if (room == NULL) return false;
    keys->room = room;
    keys->room_nbytes = 2 * (longest + HR_FEAST_KEY_EXTRA);
    return true;
}

static bool feast_begin(hr_redis_keys *keys, hr_fetch *fetch) {
    feast_plan *plan = hr_arena_calloc(fetch->arena, 1, sizeof *plan);
    if (plan == NULL || !reserve_key(keys, fetch)) return false;
    plan->oldest = (int64_t)time(NULL) - keys->feast->max_age_s;
    fetch->store_private = plan;
    for (hr_entity e = HR_ENTITY_USER; e <= HR_ENTITY_ITEM; e++)
        if (!plan_fields(keys->feast, e, fetch->fields[e], fetch->arena, &plan->of[e])) return false;
    return true;
}

static const feast_fields *fields_of(const hr_fetch *fetch, hr_entity entity) {
    const feast_plan *plan = fetch->store_private;
    return &plan->of[entity];
}

/* An id that no key can have is nobody's; a record of which no field is wanted is there. */
static bool feast_asks(hr_redis_keys *keys, const hr_fetch *fetch, const hr_fetch_slot *slot,
                       hr_record_kind *known) {
    *known = HR_RECORD_MISSING;
    if (hr_feast_key_write(keys->feast, slot->entity, slot->id, keys->room) == 0) return false;
    *known = HR_RECORD_VALUES;
    return fields_of(fetch, slot->entity)->n_fields > 0;
}

static int feast_put(hr_redis_connection *connection, hr_redis_keys *keys, hr_fetch *fetch,
                     const uint32_t *records, size_t n) {
    (void)n; /* 1 */
    const hr_fetch_slot slot = hr_fetch__slot(fetch, records[0]);
    const feast_fields *fields = fields_of(fetch, slot.entity);
    const size_t n_key = hr_feast_key_write(keys->feast, slot.entity, slot.id, keys->room);
    hr_redis_begin(connection, 2 + fields->n_fields + fields->n_views);
    hr_redis_text(connection, "HMGET", 5, NULL, 0);
    hr_redis_text(connection, keys->room, n_key, NULL, 0);
    for (size_t f = 0; f < fields->n_fields; f++)
        hr_redis_text(connection, (const char *)fields->names[f], HR_FEAST_FIELD_NBYTES, NULL, 0);
    for (size_t v = 0; v < fields->n_views; v++)
        hr_redis_text(connection, fields->times[v].text, fields->times[v].nbytes, NULL, 0);
    return (int)(fields->n_fields + fields->n_views);
}

/* A view without a time that can be read is as old as can be. */
static bool is_too_old(const hr_field_text *time, int64_t oldest) {
    int64_t seconds;
    return time->text == NULL || !hr_feast_time_read((const uint8_t *)time->text, time->nbytes, &seconds) ||
           seconds < oldest;
}

/* Takes the values of a view away; whether there were any. */
static bool drop_view(const feast_fields *fields, hr_field_text *texts, uint32_t view) {
    bool had = false;
    for (size_t f = 0; f < fields->n_fields; f++) {
        if (fields->view_of[f] != view) continue;
        had |= texts[f].text != NULL;
        texts[f] = (hr_field_text){NULL, 0};
    }
    return had;
}

/* A record of which no value is left is none. */
static size_t feast_whole(const hr_redis_filling *filling, const hr_fetch *fetch, const hr_fetch_slot *slot) {
    const feast_plan *plan = fetch->store_private;
    const feast_fields *fields = &plan->of[slot->entity];
    size_t n_too_old = 0, n_left = 0;
    if (filling->fields == NULL) return 0;
    for (uint32_t v = 0; v < fields->n_views; v++)
        if (is_too_old(&filling->fields[fields->n_fields + v], plan->oldest))
            n_too_old += drop_view(fields, filling->fields, v);
    for (size_t f = 0; f < fields->n_fields; f++) n_left += filling->fields[f].text != NULL;
    if (n_left > 0) {
        slot->record->fields = filling->fields;
        slot->record->kind = HR_RECORD_VALUES;
    }
    return n_too_old;
}

const hr_redis_layout hr_redis_layout_feast = {.begin = feast_begin,
                                               .max_records = 1,
                                               .asks = feast_asks,
                                               .put = feast_put,
                                               .text = hr_redis_layout__field_text,
                                               .whole = feast_whole};
