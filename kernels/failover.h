/* When a device fails: who may use it, and when it is tried again. Private to kernels/.
 *
 * A backend that may fail runs beside a CPU backend that was prepared from the same plan. The first failure
 * breaks the device for the whole engine; its batches then go to the CPU. After a pause, which doubles up to
 * a minute, one batch is tried on the device: if it succeeds the engine is whole again. Any thread.
 */
#ifndef HOMERANK_KERNELS_FAILOVER_H
#define HOMERANK_KERNELS_FAILOVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define HR_FAILOVER_FIRST_PAUSE_NS UINT64_C(1000000000)
#define HR_FAILOVER_LAST_PAUSE_NS  UINT64_C(60000000000)

typedef struct hr_failover {
    /* 0: whole; else when the device may be tried again. The thread that moves it on is the one that tries.
     */
    atomic_uint_least64_t retry_ns;
    atomic_uint_least64_t pause_ns; /* the last one */
} hr_failover;

void hr_failover_init(hr_failover *failover);
bool hr_failover_is_broken(const hr_failover *failover);

/* Whether this batch may go to the device. Where it was broken, true is given to one thread a pause. */
bool hr_failover_may_try(hr_failover *failover, uint64_t now_ns);

/* What came of a batch on the device; failed's err says why. Log lines tell of each change, once. */
void hr_failover_failed(hr_failover *failover, uint64_t now_ns, const char *backend, const hr_error *err);
void hr_failover_succeeded(hr_failover *failover, const char *backend);

#endif
