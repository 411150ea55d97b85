/* The cache's policy: it holds what it says it holds, and what it keeps is worth more than what LRU keeps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "features/cache_policy.h"

static uint64_t random_state;

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* The hash of an id: splitmix64. */
static uint64_t hash_of(uint64_t id) {
    uint64_t x = id + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* --- a trace, and what two policies make of it -----------------------------------------------------------
 */

enum { N_POPULAR = 100000, N_IDS = 1000000, N_REQUESTS = 1000000 };

/* Ids by Zipf's law (exponent 1) over N_POPULAR of them; with `scans`, every fifth stretch of the trace runs
 * once over ids that nobody asks for again. */
static uint32_t *make_trace(bool scans) {
    enum { STRETCH = 20000 };
    uint32_t *trace = malloc(N_REQUESTS * sizeof *trace);
    double *sums = malloc(N_POPULAR * sizeof *sums), sum = 0;
    uint32_t scanned = N_POPULAR;
    random_state = 20240805;
    for (uint32_t i = 0; i < N_POPULAR; i++) sums[i] = sum += 1.0 / (i + 1);
    for (uint32_t k = 0; k < N_REQUESTS; k++) {
        const double u = (double)(next_random() >> 11) * 0x1p-53 * sum;
        uint32_t low = 0, high = N_POPULAR - 1;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (sums[middle] < u)
                low = middle + 1;
            else
                high = middle;
        }
        trace[k] = scans && k / STRETCH % 5 == 4 ? scanned++ : low;
    }
    free(sums);
    return trace;
}

typedef struct item {
    hr_cache_node node; /* first: a victim is its item */
    bool cached;
} item;

/* The share of the requests that hit, of a cache for n_cached of the ids. */
static double hit_rate(const uint32_t *trace, size_t n_cached) {
    enum { NBYTES = 300 };
    item *items = calloc(N_IDS, sizeof *items);
    static hr_cache_ghost ghosts[32768];
    hr_cache_policy policy;
    size_t n_hits = 0, n_ghosts = 4;
    while (n_ghosts < n_cached) n_ghosts *= 2;
    memset(ghosts, 0, sizeof ghosts);
    hr_cache_policy_init(&policy, n_cached * NBYTES, ghosts, n_ghosts);
    for (uint32_t k = 0; k < N_REQUESTS; k++) {
        item *it = &items[trace[k]];
        if (it->cached) {
            n_hits++;
            hr_cache_policy_hit(&it->node);
            continue;
        }
        it->node.hash = hash_of(trace[k]);
        it->node.nbytes = NBYTES;
        it->cached = true;
        hr_cache_policy_insert(&policy, &it->node);
        hr_cache_node *victim;
        while ((victim = hr_cache_policy_victim(&policy)) != NULL) ((item *)victim)->cached = false;
        assert_true(hr_cache_policy_nbytes(&policy) <= policy.capacity_nbytes);
    }
    free(items);
    return (double)n_hits / N_REQUESTS;
}

typedef struct lru_item {
    struct lru_item *newer, *older; /* a ring through the sentinel */
} lru_item;

static double lru_hit_rate(const uint32_t *trace, size_t n_cached) {
    lru_item *items = calloc(N_IDS, sizeof *items), ring = {&ring, &ring};
    size_t n_hits = 0, n = 0;
    for (uint32_t k = 0; k < N_REQUESTS; k++) {
        lru_item *it = &items[trace[k]];
        const bool hit = it->newer != NULL;
        if (!hit && n == n_cached) {
            lru_item *victim = ring.newer;
            ring.newer = victim->newer;
            ring.newer->older = &ring;
            victim->newer = NULL;
        } else if (hit) {
            it->newer->older = it->older;
            it->older->newer = it->newer;
        }
        n += !hit && n < n_cached;
        n_hits += hit;
        *it = (lru_item){.newer = &ring, .older = ring.older};
        it->older->newer = it;
        ring.older = it;
    }
    free(items);
    return (double)n_hits / N_REQUESTS;
}

static void it_beats_lru_on_a_zipf_trace_with_and_without_scans(void **state) {
    (void)state;
    static const size_t sizes[] = {1000, 5000, 10000, 25000};
    static const double margins[2][4] = {{0.08, 0.05, 0.04, 0.015}, {0.06, 0.04, 0.03, 0.02}};
    for (int scans = 0; scans < 2; scans++) {
        uint32_t *trace = make_trace(scans);
        for (int i = 0; i < 4; i++) {
            const double ours = hit_rate(trace, sizes[i]), lru = lru_hit_rate(trace, sizes[i]);
            printf("zipf 1.0 over %d ids%s, cache of %zu: hit rate %.4f, LRU %.4f\n", N_POPULAR,
                   scans ? ", a fifth of it scans" : "", sizes[i], ours, lru);
            assert_true(ours > lru + margins[scans][i]);
        }
        free(trace);
    }
}

/* --- what it holds ---------------------------------------------------------------------------------------
 */

enum { N_NODES = 300 };

/* Every queue, walked both ways, agrees with its counts and with who is in. */
static void check(const hr_cache_policy *policy, const item *items) {
    size_t n_in = 0, n_seen = 0;
    for (int i = 0; i < N_NODES; i++) n_in += items[i].cached;
    for (int id = 0; id < HR_CACHE_QUEUES; id++) {
        const hr_cache_queue *queue = &policy->queues[id];
        const hr_cache_node *before = NULL;
        size_t nbytes = 0, n_nodes = 0;
        for (const hr_cache_node *node = queue->newest; node != NULL; node = node->older) {
            assert_ptr_equal(node->newer, before);
            assert_int_equal(node->queue, id);
            assert_true(((const item *)node)->cached);
            assert_in_range(node->n_hits, 0, HR_CACHE_MAX_HITS);
            nbytes += node->nbytes;
            n_nodes++;
            before = node;
        }
        assert_ptr_equal(queue->oldest, before);
        assert_int_equal(queue->nbytes, nbytes);
        assert_int_equal(queue->n_nodes, n_nodes);
        n_seen += n_nodes;
    }
    assert_int_equal(n_seen, n_in);
}

static void whatever_is_done_the_queues_hold_what_is_in(void **state) {
    (void)state;
    static item items[N_NODES], spare[N_NODES];
    hr_cache_ghost ghosts[64] = {{0, 0}};
    hr_cache_policy policy;
    random_state = 7;
    hr_cache_policy_init(&policy, 9000, ghosts, 64);
    for (int step = 0; step < 100000; step++) {
        const uint64_t r = next_random();
        item *it = &items[r % N_NODES];
        if (!it->cached) {
            it->node.hash = hash_of(r % N_NODES);
            it->node.nbytes = 1 + (r >> 20) % 200;
            it->cached = true;
            hr_cache_policy_insert(&policy, &it->node);
        } else if ((r >> 40) % 8 == 0) {
            hr_cache_policy_remove(&policy, &it->node);
            it->cached = false;
        } else if ((r >> 40) % 8 == 1) { /* away to another place, and back with another size */
            item *other = &spare[r % N_NODES];
            other->node.nbytes = it->node.nbytes;
            hr_cache_policy_replace(&policy, &it->node, &other->node);
            it->node.nbytes = 1 + (r >> 20) % 400;
            hr_cache_policy_replace(&policy, &other->node, &it->node);
        } else {
            hr_cache_policy_hit(&it->node);
        }
        hr_cache_node *victim;
        while ((victim = hr_cache_policy_victim(&policy)) != NULL) ((item *)victim)->cached = false;
        assert_true(hr_cache_policy_nbytes(&policy) <= policy.capacity_nbytes);
        if (step % 64 == 0) check(&policy, items);
    }
    check(&policy, items);
}

static void a_node_larger_than_everything_is_its_own_victim(void **state) {
    (void)state;
    item small = {.node = {.hash = 1, .nbytes = 10}}, large = {.node = {.hash = 2, .nbytes = 101}};
    hr_cache_ghost ghosts[4] = {{0, 0}};
    hr_cache_policy policy;
    hr_cache_policy_init(&policy, 100, ghosts, 4);
    assert_null(hr_cache_policy_victim(&policy));
    hr_cache_policy_insert(&policy, &small.node);
    assert_null(hr_cache_policy_victim(&policy));
    hr_cache_policy_insert(&policy, &large.node);
    assert_ptr_equal(hr_cache_policy_victim(&policy), &small.node);
    assert_ptr_equal(hr_cache_policy_victim(&policy), &large.node);
    assert_null(hr_cache_policy_victim(&policy));
    assert_int_equal(hr_cache_policy_nbytes(&policy), 0);
}

static void what_came_back_soon_is_not_given_up_with_what_never_does(void **state) {
    (void)state;
    static item items[N_NODES];
    hr_cache_ghost ghosts[256] = {{0, 0}};
    hr_cache_policy policy;
    hr_cache_policy_init(&policy, 100, ghosts, 256);
    for (int i = 0; i < 100; i++) { /* a hundred are in, one of them asked for twice more */
        items[i].node = (hr_cache_node){.hash = hash_of((uint64_t)i), .nbytes = 1};
        hr_cache_policy_insert(&policy, &items[i].node);
    }
    for (int n = 0; n < 2; n++) hr_cache_policy_hit(&items[0].node);
    for (int i = 100; i < N_NODES; i++) { /* and two hundred more come once */
        items[i].node = (hr_cache_node){.hash = hash_of((uint64_t)i), .nbytes = 1};
        hr_cache_policy_insert(&policy, &items[i].node);
        assert_ptr_not_equal(hr_cache_policy_victim(&policy), &items[0].node);
    }
    assert_int_equal(items[0].node.queue, HR_CACHE_MAIN);
    hr_cache_policy_insert(&policy, &items[199].node); /* given up last */
    assert_int_equal(items[199].node.queue, HR_CACHE_MAIN);
    hr_cache_policy_insert(&policy, &items[1].node); /* given up long ago */
    assert_int_equal(items[1].node.queue, HR_CACHE_SMALL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_beats_lru_on_a_zipf_trace_with_and_without_scans),
        cmocka_unit_test(whatever_is_done_the_queues_hold_what_is_in),
        cmocka_unit_test(a_node_larger_than_everything_is_its_own_victim),
        cmocka_unit_test(what_came_back_soon_is_not_given_up_with_what_never_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
