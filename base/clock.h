/* Time. Any thread. */
#ifndef HOMERANK_BASE_CLOCK_H
#define HOMERANK_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic nanoseconds (CLOCK_MONOTONIC), for deadlines and durations. */
uint64_t hr_clock_ns(void);

/* Wall-clock microseconds since 1970 UTC, for logs. */
uint64_t hr_clock_wall_us(void);

#endif
