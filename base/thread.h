/* Thread helpers over pthreads. */
#ifndef HOMERANK_BASE_THREAD_H
#define HOMERANK_BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

#include "base/status.h"

/* Starts a joinable thread with all signals blocked (signals are the main thread's) and a name (at most 15
 * bytes, seen in top and gdb). Errors: RESOURCE_EXHAUSTED. */
hr_status hr_thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg,
                          hr_error *err);

/* Makes the calling thread, for good, give way to all of normal priority: it runs where a CPU would idle, and
 * gets some hundredth of a busy one. Its reading of files comes last too. */
void hr_thread_give_way(void);

/* Makes the calling thread, for good, let others go first that have little to do: for threads that compute
 * for long, beside those that answer. */
void hr_thread_compute(void);

/* Makes the calling thread, for good, go first where it may (CAP_SYS_NICE, RLIMIT_NICE): for threads that do
 * little at a time and are waited for. A thread that has just run for some 300 us is made to wait for one
 * that computes, until the next tick of a 4 ms clock or two, unless it outweighs it by far. */
void hr_thread_answer(void);

/* The CPUs this process may run on (its affinity mask and cgroup quota), >= 1. */
uint32_t hr_cpu_count(void);

#endif
