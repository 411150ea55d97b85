/* Sets of metrics whose labels come and go: one per key, made when the key is first seen and dropped when it
 * has been idle for long, so that what comes and goes (the versions of models) does not add up.
 *
 * Thread rule: any thread may enter, record, and leave; that waits for nobody, but where a key is new. One
 * thread at a time keeps, sweeps and lists: the collector's.
 */
#ifndef HOMERANK_BASE_METRICS_GROUP_H
#define HOMERANK_BASE_METRICS_GROUP_H

#include "base/metrics.h"

enum { HR_METRIC_GROUP_MAX = 64 }; /* keys at a time; further ones share one set */

typedef struct hr_metric_group hr_metric_group;

/* make: a new set for the key; for NULL, that of the keys that found no place. It returns NULL when out of
 * memory. The group is NULL then too. */
hr_metric_group *hr_metric_group_create(hr_metric_set *(*make)(const char *key));
void hr_metric_group_destroy(hr_metric_group *group); /* nobody is inside; NULL is allowed */

/* The key's set, the calling thread's to record in until it leaves. A thread is in one group at a time and
 * must not block inside. */
hr_metric_set *hr_metric_group_enter(hr_metric_group *group, const char *key);
void hr_metric_group_leave(hr_metric_group *group);

/* Makes the key's set where it is new, and keeps it from the next sweep. */
void hr_metric_group_keep(hr_metric_group *group, const char *key);

/* Drops the sets that nobody entered or kept for idle_ns before now_ns (hr_clock_ns), waiting for whoever is
 * still inside. */
void hr_metric_group_sweep(hr_metric_group *group, uint64_t now_ns, uint64_t idle_ns);

/* The sets, the shared one last where it is in use. They live until the next sweep. Returns how many. */
size_t hr_metric_group_list(hr_metric_group *group, hr_metric_set *sets[HR_METRIC_GROUP_MAX + 1]);

#endif
