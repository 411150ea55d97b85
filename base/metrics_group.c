/* Sets that come and go: see metrics_group.h.
 *
 * A thread inside a group has an odd number in its slot. A set is dropped in two steps: it is taken off the
 * table, then the sweeper waits for every thread that was inside at that moment; those that come later cannot
 * find it. Entering writes the number before it reads the table, the sweeper writes the table before it reads
 * the numbers, all in the one order of sequential consistency: who found the set is seen. Threads of the
 * shared slot hold the lock instead.
 */
#include "base/metrics_group.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics_internal.h"

typedef struct entry {
    hr_metric_set *set;     /* owned */
    atomic_bool touched;    /* since the last sweep */
    uint64_t idle_since_ns; /* the sweeper's; a new one is touched */
    char key[];
} entry;

struct hr_metric_group {
    hr_metric_set *(*make)(const char *key);
    _Atomic(entry *) entries[HR_METRIC_GROUP_MAX]; /* owned; the first n_entries may be set */
    atomic_size_t n_entries;
    pthread_mutex_t lock; /* to write the entries, and for threads of the shared slot to use them */
    entry *overflow;      /* owned; of the keys that found no place */
};

static struct {
    alignas(64) atomic_uint number; /* odd while the slot's thread is in a group */
} inside[HR_METRIC_SLOTS];

static void entry_destroy(entry *e) {
    if (e == NULL) return;
    hr_metric_set_destroy(e->set);
    free(e);
}

static entry *entry_create(hr_metric_group *group, const char *key) {
    size_t nbytes = key != NULL ? strlen(key) + 1 : 1;
    entry *e = calloc(1, sizeof *e + nbytes);
    if (e == NULL) return NULL;
    if (key != NULL) memcpy(e->key, key, nbytes);
    e->set = group->make(key);
    if (e->set != NULL) return e;
    free(e);
    return NULL;
}

hr_metric_group *hr_metric_group_create(hr_metric_set *(*make)(const char *key)) {
    hr_metric_group *group = calloc(1, sizeof *group);
    if (group == NULL) return NULL;
    group->make = make;
    group->overflow = entry_create(group, NULL);
    if (group->overflow == NULL) {
        free(group);
        return NULL;
    }
    pthread_mutex_init(&group->lock, NULL);
    return group;
}

void hr_metric_group_destroy(hr_metric_group *group) {
    if (group == NULL) return;
    for (size_t i = 0; i < HR_METRIC_GROUP_MAX; i++) entry_destroy(atomic_load(&group->entries[i]));
    entry_destroy(group->overflow);
    pthread_mutex_destroy(&group->lock);
    free(group);
}

/* Read first: the line is shared by all that enter. */
static void touch(entry *e) {
    if (!atomic_load_explicit(&e->touched, memory_order_relaxed))
        atomic_store_explicit(&e->touched, true, memory_order_relaxed);
}

/* Inside, or with the lock. */
static entry *find(hr_metric_group *group, const char *key) {
    size_t n = atomic_load(&group->n_entries);
    for (size_t i = 0; i < n; i++) {
        entry *e = atomic_load(&group->entries[i]);
        if (e != NULL && strcmp(e->key, key) == 0) return e;
    }
    return NULL;
}

/* With the lock: the key's entry, new where there is room. */
static entry *find_or_add(hr_metric_group *group, const char *key) {
    entry *e = find(group, key);
    for (size_t i = 0; i < HR_METRIC_GROUP_MAX && e == NULL; i++) {
        if (atomic_load(&group->entries[i]) != NULL) continue;
        e = entry_create(group, key);
        if (e == NULL) break;
        atomic_store(&group->entries[i], e);
        if (i >= atomic_load(&group->n_entries)) atomic_store(&group->n_entries, i + 1);
    }
    if (e == NULL) e = group->overflow;
    touch(e);
    return e;
}

hr_metric_set *hr_metric_group_enter(hr_metric_group *group, const char *key) {
    uint32_t slot = hr_metric__slot();
    if (slot == HR_METRIC_SHARED_SLOT) {
        pthread_mutex_lock(&group->lock); /* until it leaves */
        return find_or_add(group, key)->set;
    }
    atomic_uint *number = &inside[slot].number;
    unsigned outside = atomic_load_explicit(number, memory_order_relaxed);
    assert(outside % 2 == 0);
    atomic_store(number, outside + 1);
    entry *e = find(group, key);
    if (e != NULL) {
        touch(e);
        return e->set;
    }
    /* Out again, or a sweeper that holds the lock would wait for us. */
    atomic_store(number, outside + 2);
    pthread_mutex_lock(&group->lock);
    e = find_or_add(group, key);
    atomic_store(number, outside + 3);
    pthread_mutex_unlock(&group->lock);
    return e->set;
}

void hr_metric_group_leave(hr_metric_group *group) {
    uint32_t slot = hr_metric__slot();
    if (slot == HR_METRIC_SHARED_SLOT) {
        pthread_mutex_unlock(&group->lock);
        return;
    }
    unsigned number = atomic_load_explicit(&inside[slot].number, memory_order_relaxed);
    assert(number % 2 == 1);
    atomic_store_explicit(&inside[slot].number, number + 1, memory_order_release);
}

void hr_metric_group_keep(hr_metric_group *group, const char *key) {
    pthread_mutex_lock(&group->lock);
    find_or_add(group, key);
    pthread_mutex_unlock(&group->lock);
}

static void wait_for_those_inside(void) {
    for (size_t slot = 0; slot < HR_METRIC_SHARED_SLOT; slot++) {
        unsigned seen = atomic_load(&inside[slot].number);
        while (seen % 2 == 1 && atomic_load(&inside[slot].number) == seen) sched_yield();
    }
}

void hr_metric_group_sweep(hr_metric_group *group, uint64_t now_ns, uint64_t idle_ns) {
    entry *dropped[HR_METRIC_GROUP_MAX];
    size_t n_dropped = 0;
    pthread_mutex_lock(&group->lock);
    for (size_t i = 0; i < HR_METRIC_GROUP_MAX; i++) {
        entry *e = atomic_load(&group->entries[i]);
        if (e == NULL) continue;
        if (atomic_exchange(&e->touched, false)) e->idle_since_ns = now_ns;
        if (now_ns - e->idle_since_ns < idle_ns) continue;
        atomic_store(&group->entries[i], NULL);
        dropped[n_dropped++] = e;
    }
    if (n_dropped > 0) wait_for_those_inside();
    pthread_mutex_unlock(&group->lock);
    for (size_t i = 0; i < n_dropped; i++) entry_destroy(dropped[i]);
}

size_t hr_metric_group_list(hr_metric_group *group, hr_metric_set *sets[HR_METRIC_GROUP_MAX + 1]) {
    size_t n = 0;
    pthread_mutex_lock(&group->lock);
    for (size_t i = 0; i < HR_METRIC_GROUP_MAX; i++) {
        entry *e = atomic_load(&group->entries[i]);
        if (e != NULL) sets[n++] = e->set;
    }
    if (atomic_load(&group->overflow->touched)) sets[n++] = group->overflow->set;
    pthread_mutex_unlock(&group->lock);
    return n;
}
