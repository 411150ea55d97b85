/* The process metrics that every Prometheus client library has: CPU time, memory, files, start time. */
#ifndef HOMERANK_BASE_METRICS_PROCESS_H
#define HOMERANK_BASE_METRICS_PROCESS_H

#include "base/metrics_text.h"

/* A collector (hr_metrics_add); arg is not used. What /proc does not tell is left out. */
void hr_metrics_process_collect(hr_metrics_text *text, void *arg);

#endif
