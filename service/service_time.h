/* How long a batch of a model occupies a worker, by its rows, as measured.
 *
 * A batch of few rows costs more a row than one of many, and by how much depends on the backend. So the time
 * is kept by size, one moving average per power of two, and an estimate says no more than what was measured:
 * a batch takes at least as long as any smaller one, and a row of it at least as long as a row of any larger
 * one. Where nothing was measured that is zero: nobody is refused on a guess.
 *
 * Thread rule: any thread; the values are atomics that do not order anything. Of two threads that measure at
 * once one may be lost.
 */
#ifndef HOMERANK_SERVICE_SERVICE_TIME_H
#define HOMERANK_SERVICE_SERVICE_TIME_H

#include <stdatomic.h>
#include <stdint.h>

enum { HR_SERVICE_TIME_SIZES = 17 }; /* powers of two; the last holds whatever is larger */

/* All zero: nothing was measured. */
typedef struct hr_service_time {
    struct {
        atomic_ullong ns, rows_q8; /* averages; rows in 1/256 */
        atomic_uint n_samples;
    } sizes[HR_SERVICE_TIME_SIZES];
    atomic_ullong measured_ns; /* hr_clock_ns of the latest */
} hr_service_time;

/* A batch of n_rows >= 1 took ns. One that took far longer than expected counts as four times the average:
 * a machine that stood still says little of the next batch. */
void hr_service_time_add(hr_service_time *time, uint32_t n_rows, uint64_t ns, uint64_t now_ns);

/* What a batch of n_rows takes at least. */
uint64_t hr_service_time_estimate(const hr_service_time *time, uint32_t n_rows);

/* hr_clock_ns of the latest measurement; 0: none. */
uint64_t hr_service_time_measured_ns(const hr_service_time *time);

#endif
