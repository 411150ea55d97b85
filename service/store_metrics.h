/* What a feature store and its cache count, for Prometheus. docs/operations.md lists the families. */
#ifndef HOMERANK_SERVICE_STORE_METRICS_H
#define HOMERANK_SERVICE_STORE_METRICS_H

#include "base/metrics.h"

/* For hr_metrics_add; arg is the hr_store. Prints nothing of a store that counts nothing. */
void hr_store_metrics_collect(hr_metrics_text *text, void *store);

#endif
