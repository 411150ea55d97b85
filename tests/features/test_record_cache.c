/* The record cache: what was put comes back, for as long as it is true, and never in more memory than
 * allowed.
 */
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "features/record_cache.h"

enum { TTL_MS = 10000, MAX_STALE_MS = 5000, MAX_WORDS = 64, FINGERPRINT = 1 };
static const uint64_t ms_ns = 1000000, start_ns = UINT64_C(1000000000000);

/* A cache with one source whose cover lasts, and an arena to read into. */
typedef struct fixture {
    hr_record_cache *cache;
    hr_cache_covers *covers;
    int source;
    hr_cover cover;
    hr_arena *arena;
    uint32_t row[MAX_WORDS];
} fixture;

static void open_cache(fixture *f, size_t nbytes, uint32_t max_stale_ms) {
    const hr_record_cache_options options = {
        .nbytes = nbytes, .ttl_ms = TTL_MS, .max_stale_ms = max_stale_ms};
    hr_error err = {0};
    memset(f, 0, sizeof *f);
    if (hr_record_cache_create(&options, &f->cache, &err) != HR_OK) fail_msg("%s", err.message);
    f->covers = hr_record_cache_covers(f->cache);
    f->source = hr_cache_source_open(f->covers);
    f->cover = hr_cache_cover_begin(f->covers, f->source);
    f->arena = hr_arena_create(16 << 20);
}

static void close_cache(fixture *f) {
    hr_arena_destroy(f->arena);
    hr_record_cache_destroy(f->cache);
}

static hr_record_key item(const fixture *f, const char *id) {
    return hr_record_cache_key(f->cache, FINGERPRINT, HR_ENTITY_ITEM, id);
}

static hr_record packed(const fixture *f, const char *text) {
    return (hr_record){.kind = HR_RECORD_PACKED,
                       .data = (const uint8_t *)text,
                       .nbytes = strlen(text),
                       .answered = true,
                       .cover = f->cover};
}

static uint64_t put(fixture *f, const hr_record_key *key, const hr_record *record) {
    return hr_record_cache_put_record(f->cache, key, hr_record_cache_ticket(f->cache, key), record, 0,
                                      start_ns);
}

static bool get(fixture *f, const hr_record_key *key, bool stale_too, uint64_t now_ns, hr_record *record) {
    memset(f->row, 0xee, sizeof f->row);
    return hr_record_cache_get(f->cache, key, stale_too, now_ns, f->row, 3, f->arena, record) ==
           HR_CACHE_FOUND;
}

/* Offers a row of three words for the record of that version. */
static void put_row(fixture *f, const hr_record_key *key, const hr_record *of, uint64_t version,
                    const uint32_t *row, size_t n_words, const uint32_t *n_wrong) {
    hr_record record = *of;
    record.version = version;
    if (version == 0) return;
    const hr_row_offer offer = {.record = &record, .row = row, .n_wrong = n_wrong, .n_wrong_counts = 2};
    hr_record_cache_put_row(f->cache, key, &offer, n_words, start_ns);
}

static void what_was_put_comes_back(void **state) {
    (void)state;
    fixture f;
    hr_record found;
    open_cache(&f, 1 << 20, 0);
    const hr_record_key a = item(&f, "a"), b = item(&f, "b"), c = item(&f, "c"), d = item(&f, "d");
    assert_false(get(&f, &a, true, start_ns, &found));

    hr_record record = packed(&f, "");
    record.data = (const uint8_t *)"nul\0inside";
    record.nbytes = 10;
    uint64_t version = put(&f, &a, &record);
    assert_int_not_equal(version, 0);
    assert_true(get(&f, &a, false, start_ns, &found));
    assert_int_equal(found.kind, HR_RECORD_PACKED);
    assert_int_equal(found.nbytes, 10);
    assert_memory_equal(found.data, "nul\0inside", 10);
    assert_int_equal(found.version, version);
    assert_true(found.answered && !found.stale && !found.invalid && found.row == NULL);

    const hr_field_text texts[] = {{"31", 2}, {NULL, 0}, {"", 0}, {"x,y", 3}};
    record = (hr_record){.kind = HR_RECORD_FIELDS, .fields = texts, .answered = true, .cover = f.cover};
    assert_int_not_equal(
        hr_record_cache_put_record(f.cache, &b, hr_record_cache_ticket(f.cache, &b), &record, 4, start_ns),
        0);
    assert_true(get(&f, &b, false, start_ns, &found));
    assert_int_equal(found.kind, HR_RECORD_FIELDS);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(found.fields[i].text == NULL, texts[i].text == NULL);
        assert_int_equal(found.fields[i].nbytes, texts[i].nbytes);
        if (texts[i].text != NULL) assert_memory_equal(found.fields[i].text, texts[i].text, texts[i].nbytes);
    }

    record = (hr_record){.kind = HR_RECORD_MISSING, .answered = true, .cover = f.cover};
    put(&f, &c, &record);
    record.invalid = true;
    put(&f, &d, &record);
    assert_true(get(&f, &c, false, start_ns, &found));
    assert_int_equal(found.kind, HR_RECORD_MISSING);
    assert_false(found.invalid);
    assert_true(get(&f, &d, false, start_ns, &found));
    assert_true(found.invalid);

    hr_cache_stats stats;
    hr_record_cache_stats(f.cache, &stats);
    assert_int_equal(stats.n_hits, 4);
    assert_int_equal(stats.n_negative_hits, 2);
    assert_int_equal(stats.n_entries, 4);
    close_cache(&f);
}

static void a_row_takes_the_place_of_its_record_and_of_no_other(void **state) {
    (void)state;
    static const uint32_t row[] = {7, 8, 9}, n_wrong[] = {0, 2};
    fixture f;
    hr_record found;
    open_cache(&f, 1 << 20, 0);
    const hr_record_key a = item(&f, "a"), b = item(&f, "b");
    hr_record record = packed(&f, "first");
    uint64_t before = put(&f, &a, &record), version = put(&f, &a, &record);
    assert_int_not_equal(before, version);
    put_row(&f, &a, &record, before, row, 3, NULL); /* of a record that has been replaced */
    assert_true(get(&f, &a, false, start_ns, &found));
    assert_int_equal(found.kind, HR_RECORD_PACKED);

    put_row(&f, &a, &record, version, row, 3, n_wrong);
    assert_true(get(&f, &a, false, start_ns, &found));
    assert_int_equal(found.kind, HR_RECORD_ROW);
    assert_ptr_equal(found.row, f.row);
    assert_memory_equal(f.row, row, sizeof row);
    assert_int_equal(f.row[3], 0xeeeeeeee);
    assert_memory_equal(found.n_wrong, n_wrong, sizeof n_wrong);
    assert_int_equal(found.version, 0);

    record = (hr_record){.kind = HR_RECORD_MISSING, .answered = true, .cover = f.cover};
    put_row(&f, &b, &record, put(&f, &b, &record), row, 3, NULL);
    assert_true(get(&f, &b, false, start_ns, &found));
    assert_int_equal(found.kind, HR_RECORD_MISSING); /* as it is told to callers */
    assert_ptr_equal(found.row, f.row);
    assert_null(found.n_wrong);
    assert_memory_equal(f.row, row, sizeof row);

    hr_record_cache_forget(f.cache, HR_ENTITY_ITEM, "a", 1, start_ns);
    put_row(&f, &a, &record, version, row, 3, NULL); /* changed while it was encoded */
    assert_false(get(&f, &a, true, start_ns, &found));
    close_cache(&f);
}

enum { N_MANY = 50 }; /* some blocks of the cache's, and a part of one */

typedef struct many {
    char ids[N_MANY][16];
    const char *list[N_MANY];
    uint32_t rows[N_MANY][3], absent[N_MANY];
    hr_record records[N_MANY];
    hr_record_wanted wanted;
} many;

/* Records "item FIRST" ... "item FIRST + n - 1" to be looked for. */
static void ask_for(many *m, uint32_t first, size_t n, hr_arena *arena) {
    m->wanted = (hr_record_wanted){.fingerprint = FINGERPRINT,
                                   .entity = HR_ENTITY_ITEM,
                                   .n = n,
                                   .n_words = 3,
                                   .ids = m->list,
                                   .rows = m->rows[0],
                                   .records = m->records,
                                   .arena = arena};
    for (uint32_t i = 0; i < n; i++) {
        snprintf(m->ids[i], sizeof m->ids[i], "item %" PRIu32, first + i);
        m->list[i] = m->ids[i];
        m->records[i] = (hr_record){.kind = HR_RECORD_MISSING};
    }
}

static void many_are_found_as_each_alone_would_be(void **state) {
    (void)state;
    fixture f;
    static many m;
    open_cache(&f, 1 << 20, 0);
    ask_for(&m, 0, N_MANY, f.arena);
    for (uint32_t i = 0; i < N_MANY; i++) {
        if (i % 7 == 3) continue; /* absent */
        const hr_record_key key = item(&f, m.ids[i]);
        const hr_record record = packed(&f, m.ids[i]);
        const uint64_t version = put(&f, &key, &record);
        const uint32_t row[] = {i, 2 * i, 3 * i};
        if (i % 2 == 0) put_row(&f, &key, &record, version, row, 3, NULL);
    }
    for (size_t n = 0; n <= N_MANY; n++) {
        bool no_room = false;
        size_t n_absent = 0;
        ask_for(&m, 0, n, f.arena);
        const size_t n_told = hr_record_cache_get_many(f.cache, &m.wanted, start_ns, m.absent, &no_room);
        for (uint32_t i = 0; i < n; i++) {
            if (i % 7 == 3) {
                assert_int_equal(m.absent[n_absent++], i);
                assert_false(m.records[i].answered);
            } else if (i % 2 == 0) {
                const uint32_t row[] = {i, 2 * i, 3 * i};
                assert_ptr_equal(m.records[i].row, m.rows[i]);
                assert_memory_equal(m.rows[i], row, sizeof row);
            } else {
                assert_int_equal(m.records[i].nbytes, strlen(m.ids[i]));
                assert_memory_equal(m.records[i].data, m.ids[i], strlen(m.ids[i]));
            }
        }
        assert_int_equal(n_told, n_absent);
        assert_false(no_room);
    }
    close_cache(&f);
}

static void schemas_and_entities_are_kept_apart(void **state) {
    (void)state;
    fixture f;
    hr_record found;
    open_cache(&f, 1 << 20, 0);
    const hr_record_key keys[] = {item(&f, "x"), hr_record_cache_key(f.cache, 2, HR_ENTITY_ITEM, "x"),
                                  hr_record_cache_key(f.cache, FINGERPRINT, HR_ENTITY_USER, "x")};
    static const char *const texts[] = {"item", "item of another schema", "user"};
    for (int i = 0; i < 3; i++) {
        hr_record record = packed(&f, texts[i]);
        put(&f, &keys[i], &record);
    }
    for (int i = 0; i < 3; i++) {
        assert_true(get(&f, &keys[i], false, start_ns, &found));
        assert_int_equal(found.nbytes, strlen(texts[i]));
    }
    hr_record_cache_forget(f.cache, HR_ENTITY_ITEM, "x", 1, start_ns); /* whatever the schema */
    assert_false(get(&f, &keys[0], true, start_ns, &found));
    assert_false(get(&f, &keys[1], true, start_ns, &found));
    assert_true(get(&f, &keys[2], false, start_ns, &found));
    close_cache(&f);
}

static void an_entry_is_fresh_for_its_time_to_live_and_not_all_end_together(void **state) {
    (void)state;
    enum { N = 200 };
    fixture f;
    hr_record found;
    hr_record_key keys[N];
    char ids[N][16];
    open_cache(&f, 1 << 20, MAX_STALE_MS);
    const hr_record record = packed(&f, "x");
    for (int i = 0; i < N; i++) {
        snprintf(ids[i], sizeof ids[i], "%d", i);
        keys[i] = item(&f, ids[i]);
        put(&f, &keys[i], &record);
    }
    int n_early = 0, n_middle = 0, n_late = 0;
    for (int i = 0; i < N; i++) {
        n_early += get(&f, &keys[i], false, start_ns + (TTL_MS * 9 / 10 - 1) * ms_ns, &found);
        n_middle += get(&f, &keys[i], false, start_ns + TTL_MS * 95 / 100 * ms_ns, &found);
        n_late += get(&f, &keys[i], false, start_ns + TTL_MS * ms_ns, &found);
    }
    assert_int_equal(n_early, N);
    assert_in_range(n_middle, N / 4, N * 3 / 4);
    assert_int_equal(n_late, 0);
    assert_true(get(&f, &keys[0], true, start_ns + TTL_MS * ms_ns, &found));
    assert_false(get(&f, &keys[0], true, start_ns + (TTL_MS + MAX_STALE_MS) * ms_ns + 1, &found));
    close_cache(&f);
}

static void the_end_of_a_cover_makes_all_of_it_doubtful(void **state) {
    (void)state;
    fixture f;
    hr_record found;
    open_cache(&f, 1 << 20, MAX_STALE_MS);
    const int other = hr_cache_source_open(f.covers);
    const hr_record_key a = item(&f, "a"), b = item(&f, "b"), c = item(&f, "c");
    hr_record record = packed(&f, "x");
    put(&f, &a, &record);
    record.cover = hr_cache_cover_begin(f.covers, other);
    put(&f, &b, &record);
    const uint64_t lost_ns = start_ns + 1000 * ms_ns;
    hr_cache_cover_end(f.covers, f.source, lost_ns);
    assert_false(get(&f, &a, false, lost_ns, &found));
    assert_true(get(&f, &b, false, lost_ns, &found));
    assert_true(get(&f, &a, true, lost_ns + MAX_STALE_MS * ms_ns, &found)); /* counted from the loss */
    assert_false(get(&f, &a, true, lost_ns + MAX_STALE_MS * ms_ns + 1, &found));

    record = packed(&f, "under the ended cover");
    assert_int_equal(put(&f, &c, &record), 0);
    assert_false(get(&f, &c, true, lost_ns, &found));
    record.cover = 0;
    assert_int_equal(put(&f, &c, &record), 0);

    record.cover = hr_cache_cover_begin(f.covers, f.source);
    assert_false(get(&f, &a, false, lost_ns, &found)); /* a new cover vouches for nothing old */
    assert_int_not_equal(put(&f, &a, &record), 0);
    assert_true(get(&f, &a, false, lost_ns, &found));

    hr_cache_source_close(f.covers, other, lost_ns);
    assert_false(get(&f, &b, false, lost_ns, &found));
    assert_int_equal(hr_cache_source_open(f.covers), other);
    hr_cache_cover_begin(f.covers, other);
    assert_false(get(&f, &b, false, lost_ns, &found));

    const uint64_t again_ns = lost_ns + 1000 * ms_ns;
    for (int i = 0; i < 1000; i++) hr_cache_cover_end(f.covers, f.source, again_ns);
    assert_false(get(&f, &a, true, again_ns, &found)); /* when that one ended is no longer known */
    close_cache(&f);
}

static void a_change_forgets_the_key_and_voids_its_tickets(void **state) {
    (void)state;
    fixture f;
    hr_record found;
    open_cache(&f, 1 << 20, MAX_STALE_MS);
    const hr_record_key a = item(&f, "a");
    const hr_record record = packed(&f, "before"), after = packed(&f, "after it");
    put(&f, &a, &record);
    const hr_record_ticket ticket = hr_record_cache_ticket(f.cache, &a);
    assert_true(hr_record_cache_ticket_holds(f.cache, &a, ticket));
    hr_record_cache_forget(f.cache, HR_ENTITY_ITEM, "a", 1, start_ns + ms_ns);
    assert_false(get(&f, &a, false, start_ns + ms_ns, &found));
    assert_true(get(&f, &a, true, start_ns + ms_ns + MAX_STALE_MS * ms_ns, &found));
    assert_false(get(&f, &a, true, start_ns + ms_ns + MAX_STALE_MS * ms_ns + 1, &found));

    assert_false(hr_record_cache_ticket_holds(f.cache, &a, ticket));
    assert_int_equal(hr_record_cache_put_record(f.cache, &a, ticket, &record, 0, start_ns), 0);
    assert_false(get(&f, &a, false, start_ns + ms_ns, &found));
    put(&f, &a, &after);
    assert_true(get(&f, &a, false, start_ns, &found));
    assert_int_equal(found.nbytes, 8);

    const hr_record_ticket another = hr_record_cache_ticket(f.cache, &a);
    hr_cache_cover_end(f.covers, f.source, start_ns);
    assert_false(hr_record_cache_ticket_holds(f.cache, &a, another));
    close_cache(&f);
}

static void a_record_that_the_store_did_not_answer_is_not_kept(void **state) {
    (void)state;
    fixture f;
    hr_record found;
    open_cache(&f, 1 << 20, 0);
    const hr_record_key a = item(&f, "a");
    const hr_record record = {.kind = HR_RECORD_MISSING, .cover = f.cover};
    assert_int_equal(put(&f, &a, &record), 0);
    assert_false(get(&f, &a, true, start_ns, &found));
    close_cache(&f);
}

/* --- memory ----------------------------------------------------------------------------------------------
 */

static void it_never_takes_more_than_it_may(void **state) {
    (void)state;
    enum { N = 40000, NBYTES = 3 << 20 };
    static uint32_t words[2000];
    fixture f;
    hr_cache_stats stats;
    open_cache(&f, NBYTES, 0);
    hr_record_cache_stats(f.cache, &stats);
    const uint64_t empty = stats.nbytes;
    assert_in_range(empty, 1, NBYTES / 8);
    uint64_t random = 12345, highest = 0;
    for (int i = 0; i < N; i++) {
        char id[16];
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        snprintf(id, sizeof id, "%u", (unsigned)(random >> 40) % 20000);
        const hr_record_key key = item(&f, id);
        hr_record record = packed(&f, "");
        record.data = (const uint8_t *)words;
        record.nbytes = (random >> 33) % 4000;
        const uint64_t version = put(&f, &key, &record);
        if (i % 3 == 0) put_row(&f, &key, &record, version, words, (random >> 20) % 500, NULL);
        if (i % 5 == 0) hr_record_cache_forget(f.cache, HR_ENTITY_ITEM, id, strlen(id), start_ns);
        if (i % 100 != 0) continue;
        hr_record_cache_stats(f.cache, &stats);
        assert_true(stats.nbytes <= NBYTES);
        if (stats.nbytes > highest) highest = stats.nbytes;
    }
    assert_true(highest > NBYTES * 9 / 10); /* it is full */
    assert_true(stats.n_evictions > 0);
    for (unsigned i = 0; i < 20000; i++) {
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        hr_record_cache_forget(f.cache, HR_ENTITY_ITEM, id, strlen(id), start_ns);
    }
    hr_record_cache_stats(f.cache, &stats);
    assert_int_equal(stats.n_entries, 0);
    assert_int_equal(stats.nbytes, empty);
    close_cache(&f);
}

static void a_record_too_large_is_not_kept_and_pushes_nothing_out(void **state) {
    (void)state;
    fixture f;
    hr_record found;
    open_cache(&f, 1 << 20, 0);
    const hr_record_key a = item(&f, "a"), b = item(&f, "b");
    char *text = malloc(1 << 20);
    memset(text, 'x', 1 << 20);
    hr_record record = packed(&f, "small");
    put(&f, &a, &record);
    record.data = (const uint8_t *)text;
    record.nbytes = 1 << 20;
    assert_int_equal(put(&f, &b, &record), 0);
    assert_false(get(&f, &b, true, start_ns, &found));
    assert_true(get(&f, &a, false, start_ns, &found));
    free(text);
    close_cache(&f);
}

static void a_full_arena_is_told_and_leaves_the_record_alone(void **state) {
    (void)state;
    fixture f;
    open_cache(&f, 1 << 20, 0);
    const hr_record_key a = item(&f, "a");
    const hr_record record = packed(&f, "some forty bytes, which find no room here");
    put(&f, &a, &record);
    hr_arena *small = hr_arena_create(16);
    hr_record found = {.kind = HR_RECORD_MISSING};
    assert_int_equal(hr_record_cache_get(f.cache, &a, false, start_ns, f.row, 3, small, &found),
                     HR_CACHE_NO_ROOM);
    assert_int_equal(found.kind, HR_RECORD_MISSING);
    assert_null(found.data);
    hr_arena_destroy(small);
    close_cache(&f);
}

static void too_small_a_cache_is_an_error(void **state) {
    (void)state;
    const hr_record_cache_options options = {.nbytes = (1 << 20) - 1};
    hr_record_cache *cache;
    hr_error err;
    assert_int_equal(hr_record_cache_create(&options, &cache, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "cache: expected at least 1048576 bytes, found 1048575");
    assert_null(cache);
}

/* --- many threads ----------------------------------------------------------------------------------------
 */

enum { N_THREADS = 4, N_IDS = 64, N_STEPS = 30000 };

typedef struct crowd {
    fixture f;
    atomic_uint begun; /* threads */
    atomic_bool ended;
} crowd;

/* Every record and row says its id: whoever finds another one has found a race. */
static bool is_of(const hr_record *found, const uint32_t *row, const char *id, uint32_t number) {
    if (found->row != NULL) return row[0] == number && row[2] == number;
    return found->nbytes == strlen(id) && memcmp(found->data, id, found->nbytes) == 0;
}

static bool many_are_whole(fixture *f, many *m, uint32_t first, hr_arena *arena) {
    bool no_room = false;
    ask_for(m, first, N_MANY, arena);
    hr_record_cache_get_many(f->cache, &m->wanted, start_ns, m->absent, &no_room);
    for (uint32_t i = 0; i < N_MANY; i++)
        if (m->records[i].answered && !is_of(&m->records[i], m->rows[i], m->ids[i], first + i)) return false;
    return !no_room;
}

static void *hammer(void *arg) {
    crowd *c = arg;
    fixture *f = &c->f;
    hr_arena *arena = hr_arena_create(16 << 20);
    uint64_t random = 77 + atomic_fetch_add(&c->begun, 1);
    many m;
    for (int step = 0; step < N_STEPS; step++) {
        char id[16];
        uint32_t row[3];
        hr_record found;
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        const uint32_t number = (uint32_t)(random >> 33) % N_IDS;
        const int n = snprintf(id, sizeof id, "item %u", number);
        const hr_record_key key = item(f, id);
        const hr_record record = packed(f, id);
        if (hr_record_cache_get(f->cache, &key, step % 2, start_ns, row, 3, arena, &found) ==
            HR_CACHE_FOUND) {
            if (!is_of(&found, row, id, number)) return arg;
        } else {
            const hr_record_ticket ticket = hr_record_cache_ticket(f->cache, &key);
            found.version = hr_record_cache_put_record(f->cache, &key, ticket, &record, 0, start_ns);
            found.row = NULL;
        }
        const uint32_t made[] = {number, 0, number};
        if (found.row == NULL) put_row(f, &key, &record, found.version, made, 3, NULL);
        if (random >> 60 == 0) hr_record_cache_forget(f->cache, HR_ENTITY_ITEM, id, (size_t)n, start_ns);
        if (step % 16 == 0 && !many_are_whole(f, &m, number, arena)) return arg;
        hr_arena_reset(arena);
    }
    hr_arena_destroy(arena);
    return NULL;
}

static void threads_see_whole_entries_of_their_own_keys(void **state) {
    (void)state;
    crowd c = {.begun = 0};
    pthread_t threads[N_THREADS];
    open_cache(&c.f, 1 << 20, 0);
    for (int i = 0; i < N_THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, hammer, &c), 0);
    for (int i = 0; i < N_THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    hr_cache_stats stats;
    hr_record_cache_stats(c.f.cache, &stats);
    assert_true(stats.n_hits > N_STEPS);
    close_cache(&c.f);
}

/* Only looks up, until told to end. */
static void *watch(void *arg) {
    crowd *c = arg;
    hr_arena *arena = hr_arena_create(16 << 20);
    bool whole = true;
    many m;
    while (whole && !atomic_load_explicit(&c->ended, memory_order_relaxed)) {
        whole = many_are_whole(&c->f, &m, 0, arena);
        hr_arena_reset(arena);
    }
    hr_arena_destroy(arena);
    return whole ? NULL : arg;
}

/* Nothing but the cache itself orders these look-ups and the freeing: a thread sanitizer sees if it does not.
 */
static void an_entry_is_not_freed_while_it_is_read(void **state) {
    (void)state;
    crowd c = {.begun = 0};
    pthread_t thread;
    void *wrong;
    open_cache(&c.f, 1 << 20, 0);
    assert_int_equal(pthread_create(&thread, NULL, watch, &c), 0);
    for (int step = 0; step < N_STEPS; step++) {
        char id[16];
        snprintf(id, sizeof id, "item %d", step % N_MANY);
        const hr_record_key key = item(&c.f, id);
        const hr_record record = packed(&c.f, id);
        const hr_record_ticket ticket = hr_record_cache_ticket(c.f.cache, &key);
        hr_record_cache_put_record(c.f.cache, &key, ticket, &record, 0, start_ns);
        if (step % 3 == 0) hr_record_cache_forget(c.f.cache, HR_ENTITY_ITEM, id, strlen(id), start_ns);
    }
    atomic_store_explicit(&c.ended, true, memory_order_relaxed);
    pthread_join(thread, &wrong);
    assert_null(wrong);
    close_cache(&c.f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_comes_back),
        cmocka_unit_test(a_row_takes_the_place_of_its_record_and_of_no_other),
        cmocka_unit_test(many_are_found_as_each_alone_would_be),
        cmocka_unit_test(schemas_and_entities_are_kept_apart),
        cmocka_unit_test(an_entry_is_fresh_for_its_time_to_live_and_not_all_end_together),
        cmocka_unit_test(the_end_of_a_cover_makes_all_of_it_doubtful),
        cmocka_unit_test(a_change_forgets_the_key_and_voids_its_tickets),
        cmocka_unit_test(a_record_that_the_store_did_not_answer_is_not_kept),
        cmocka_unit_test(it_never_takes_more_than_it_may),
        cmocka_unit_test(a_record_too_large_is_not_kept_and_pushes_nothing_out),
        cmocka_unit_test(a_full_arena_is_told_and_leaves_the_record_alone),
        cmocka_unit_test(too_small_a_cache_is_an_error),
        cmocka_unit_test(threads_see_whole_entries_of_their_own_keys),
        cmocka_unit_test(an_entry_is_not_freed_while_it_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
