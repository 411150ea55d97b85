/* The slots in which threads keep their own values. */
#ifndef HOMERANK_BASE_METRICS_INTERNAL_H
#define HOMERANK_BASE_METRICS_INTERNAL_H

#include <stdint.h>

/* The last slot belongs to no thread: all that found no free one share it. */
enum { HR_METRIC_SLOTS = 64, HR_METRIC_SHARED_SLOT = HR_METRIC_SLOTS - 1 };

/* The calling thread's slot, its own from the first call until it ends, or HR_METRIC_SHARED_SLOT. */
uint32_t hr_metric__slot(void);

#endif
