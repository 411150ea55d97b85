/* Which entry a full cache gives up: see cache_policy.h. */
#include "features/cache_policy.h"

#include <stdbool.h>

enum {
    SMALL_FRACTION = 10,    /* the small queue has 1 / this of the capacity */
    PROMOTING_HITS = 2,     /* in the small queue; one alone may be the same request's neighbour */
    GHOSTS_PER_SET = 4,     /* a set is what one look-up reads */
    MAX_MOVES_A_VICTIM = 64 /* bounds one call: past it the oldest goes, whatever it earned */
};

void hr_cache_policy_init(hr_cache_policy *policy, size_t capacity_nbytes, hr_cache_ghost *ghosts,
                          size_t n_ghosts) {
    *policy = (hr_cache_policy){.capacity_nbytes = capacity_nbytes, .ghosts = ghosts, .n_ghosts = n_ghosts};
}

/* --- queues --------------------------------------------------------------------------------------------- */

static void push(hr_cache_policy *policy, hr_cache_queue_id id, hr_cache_node *node) {
    hr_cache_queue *queue = &policy->queues[id];
    node->queue = (uint8_t)id;
    node->newer = NULL;
    node->older = queue->newest;
    if (queue->newest != NULL)
        queue->newest->newer = node;
    else
        queue->oldest = node;
    queue->newest = node;
    queue->nbytes += node->nbytes;
    queue->n_nodes++;
}

void hr_cache_policy_remove(hr_cache_policy *policy, hr_cache_node *node) {
    hr_cache_queue *queue = &policy->queues[node->queue];
    *(node->newer != NULL ? &node->newer->older : &queue->newest) = node->older;
    *(node->older != NULL ? &node->older->newer : &queue->oldest) = node->newer;
    queue->nbytes -= node->nbytes;
    queue->n_nodes--;
}

void hr_cache_policy_replace(hr_cache_policy *policy, hr_cache_node *before, hr_cache_node *now) {
    hr_cache_queue *queue = &policy->queues[before->queue];
    now->newer = before->newer;
    now->older = before->older;
    now->hash = before->hash;
    now->queue = before->queue;
    now->n_hits = before->n_hits;
    *(now->newer != NULL ? &now->newer->older : &queue->newest) = now;
    *(now->older != NULL ? &now->older->newer : &queue->oldest) = now;
    queue->nbytes += now->nbytes - before->nbytes;
}

/* --- ghosts --------------------------------------------------------------------------------------------- */

static hr_cache_ghost *ghost_set(const hr_cache_policy *policy, uint64_t hash) {
    return &policy->ghosts[(hash & (policy->n_ghosts - 1)) & ~(size_t)(GHOSTS_PER_SET - 1)];
}

static uint32_t ghost_mark(uint64_t hash) {
    return (uint32_t)(hash >> 32) | 1; /* never 0 */
}

/* Takes the place of the set's oldest: `when` counts on and wraps, ages do not. */
static void remember(hr_cache_policy *policy, uint64_t hash) {
    hr_cache_ghost *set = ghost_set(policy, hash), *oldest = set;
    const uint32_t now = ++policy->n_given_up;
    for (int i = 0; i < GHOSTS_PER_SET && oldest->mark != 0; i++)
        if (set[i].mark == 0 || now - set[i].when > now - oldest->when) oldest = &set[i];
    *oldest = (hr_cache_ghost){.mark = ghost_mark(hash), .when = now};
}

/* Whether it was given up so lately that, had the main queue been as much larger again, it would be there. */
static bool was_given_up_lately(hr_cache_policy *policy, uint64_t hash) {
    hr_cache_ghost *set = ghost_set(policy, hash);
    for (int i = 0; i < GHOSTS_PER_SET; i++) {
        if (set[i].mark != ghost_mark(hash)) continue;
        const uint32_t age = policy->n_given_up - set[i].when;
        set[i].mark = 0;
        return age <= policy->queues[HR_CACHE_MAIN].n_nodes;
    }
    return false;
}

/* --- what goes ------------------------------------------------------------------------------------------ */

void hr_cache_policy_insert(hr_cache_policy *policy, hr_cache_node *node) {
    node->n_hits = 0;
    push(policy, was_given_up_lately(policy, node->hash) ? HR_CACHE_MAIN : HR_CACHE_SMALL, node);
}

/* The small queue gives while it has its share, or is all there is. */
static hr_cache_queue *giving_queue(hr_cache_policy *policy) {
    hr_cache_queue *small = &policy->queues[HR_CACHE_SMALL], *main = &policy->queues[HR_CACHE_MAIN];
    if (small->oldest == NULL) return main;
    return small->nbytes >= policy->capacity_nbytes / SMALL_FRACTION || main->oldest == NULL ? small : main;
}

hr_cache_node *hr_cache_policy_victim(hr_cache_policy *policy) {
    if (hr_cache_policy_nbytes(policy) <= policy->capacity_nbytes) return NULL;
    for (int n_moves = 0;; n_moves++) {
        hr_cache_node *oldest = giving_queue(policy)->oldest;
        const uint8_t queue = oldest->queue;
        const int enough = queue == HR_CACHE_SMALL ? PROMOTING_HITS : 1;
        hr_cache_policy_remove(policy, oldest);
        if (oldest->n_hits < enough || n_moves == MAX_MOVES_A_VICTIM) {
            if (queue == HR_CACHE_SMALL) remember(policy, oldest->hash);
            return oldest;
        }
        oldest->n_hits = queue == HR_CACHE_SMALL ? 0 : oldest->n_hits - 1;
        push(policy, HR_CACHE_MAIN, oldest);
    }
}
