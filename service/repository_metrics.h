/* What the model repository shows of itself to Prometheus. */
#ifndef HOMERANK_SERVICE_REPOSITORY_METRICS_H
#define HOMERANK_SERVICE_REPOSITORY_METRICS_H

#include "base/metrics_text.h"

/* Prints how many versions are in which state, and how much cannot be read; a collector (hr_metrics_add)
 * whose arg is the hr_repository. Any thread. */
void hr_repository_metrics_collect(hr_metrics_text *text, void *repository);

#endif
