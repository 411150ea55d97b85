/* The state of a device that may fail; see failover.h. */
#include "kernels/failover.h"

#include "base/log.h"

void hr_failover_init(hr_failover *failover) {
    atomic_init(&failover->retry_ns, 0);
    atomic_init(&failover->pause_ns, HR_FAILOVER_FIRST_PAUSE_NS);
}

bool hr_failover_is_broken(const hr_failover *failover) {
    return atomic_load(&failover->retry_ns) != 0;
}

bool hr_failover_may_try(hr_failover *failover, uint64_t now_ns) {
    uint64_t retry_ns = atomic_load(&failover->retry_ns);
    if (retry_ns == 0) return true;
    if (now_ns < retry_ns) return false;
    /* Whoever moves the time on tries; the others go on as before. */
    return atomic_compare_exchange_strong(&failover->retry_ns, &retry_ns,
                                          now_ns + atomic_load(&failover->pause_ns));
}

void hr_failover_failed(hr_failover *failover, uint64_t now_ns, const char *backend, const hr_error *err) {
    uint64_t whole = 0;
    if (atomic_compare_exchange_strong(&failover->retry_ns, &whole, now_ns + HR_FAILOVER_FIRST_PAUSE_NS)) {
        atomic_store(&failover->pause_ns, HR_FAILOVER_FIRST_PAUSE_NS);
        hr_log(HR_LOG_ERROR, "the device failed: batches run on the CPU until it answers again",
               HR_LOG_STR("backend", backend), HR_LOG_STR("error", err->message));
        return;
    }
    uint64_t pause_ns = 2 * atomic_load(&failover->pause_ns);
    if (pause_ns > HR_FAILOVER_LAST_PAUSE_NS) pause_ns = HR_FAILOVER_LAST_PAUSE_NS;
    atomic_store(&failover->pause_ns, pause_ns);
    atomic_store(&failover->retry_ns, now_ns + pause_ns);
}

void hr_failover_succeeded(hr_failover *failover, const char *backend) {
    if (atomic_load(&failover->retry_ns) == 0) return;
    if (atomic_exchange(&failover->retry_ns, 0) == 0) return;
    hr_log(HR_LOG_INFO, "the device answers again", HR_LOG_STR("backend", backend));
}
