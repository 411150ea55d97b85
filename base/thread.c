/* Threads: see thread.h. */
#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cgroup.h"

hr_status hr_thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg,
                          hr_error *err) {
    /* A new thread inherits the mask of the one that makes it. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "thread %s: cannot start: %s", name,
                            strerror(failure));
    char shown[16];
    snprintf(shown, sizeof shown, "%s", name);
    pthread_setname_np(*thread, shown);
    return HR_OK;
}

/* On Linux a nice value is a thread's. Not SCHED_IDLE: on a machine that is always busy it would never come
 * to its end. Where it fails, nothing is lost but the courtesy. */
void hr_thread_give_way(void) {
    enum { LEAST = 19 };
    setpriority(PRIO_PROCESS, (id_t)gettid(), LEAST);
}

/* A third of the weight that the thread had: what wakes up for a moment need not wait for its turn. */
void hr_thread_compute(void) {
    enum { LESS = 5 };
    int now = getpriority(PRIO_PROCESS, (id_t)gettid());
    setpriority(PRIO_PROCESS, (id_t)gettid(), now + LESS);
}

/* Nine times the weight of a thread that computes; three times where this fails. */
void hr_thread_answer(void) {
    enum { MORE = 5 };
    int now = getpriority(PRIO_PROCESS, (id_t)gettid());
    setpriority(PRIO_PROCESS, (id_t)gettid(), now - MORE);
}

/* The CPUs in the affinity mask. The kernel refuses a mask smaller than its own: grow until it fits. */
static uint32_t affinity_count(void) {
    for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)n_cpus);
        if (set == NULL) break;
        size_t nbytes = CPU_ALLOC_SIZE((size_t)n_cpus);
        int count = sched_getaffinity(0, nbytes, set) == 0 ? CPU_COUNT_S(nbytes, set) : 0;
        CPU_FREE(set);
        if (count > 0) return (uint32_t)count;
    }
    return 1;
}

uint32_t hr_cpu_count(void) {
    uint32_t count = affinity_count();
    double quota = hr_cgroup_cpus__("/proc/self/cgroup", "/sys/fs/cgroup");
    /* Rounded down: a thread too many spends the quota early, and all of them stall for the period's rest. */
    if (quota > 0 && quota < count) count = quota < 1 ? 1 : (uint32_t)quota;
    return count;
}
