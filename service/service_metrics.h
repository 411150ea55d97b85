/* What homerank counts of its ranking, for Prometheus: an observer of the pipeline that records, and a
 * collector that prints it with the models served and the queue's depth. docs/operations.md lists the
 * families.
 *
 * Series of a model's version appear when it is served and stay for ten minutes after it is last seen; at
 * most HR_METRIC_GROUP_MAX versions have series of their own, the rest share model="@other". Only models that
 * a request was resolved to are labels, never what a request asked for.
 *
 * Thread rule: the observer is the pipeline's, the rest any one thread's.
 */
#ifndef HOMERANK_SERVICE_SERVICE_METRICS_H
#define HOMERANK_SERVICE_SERVICE_METRICS_H

#include "base/metrics.h"
#include "base/status.h"
#include "service/pipeline.h"

typedef struct hr_service_metrics hr_service_metrics;

/* Adds its collector to metrics, which are borrowed and not printed after the destroy. Errors: OUT_OF_MEMORY.
 */
hr_status hr_service_metrics_create(hr_metrics *metrics, hr_service_metrics **out, hr_error *err);
void hr_service_metrics_destroy(hr_service_metrics *metrics); /* NULL is allowed */

/* For hr_pipeline_options; lives as long as the metrics. */
const hr_pipeline_observer *hr_service_metrics_observer(const hr_service_metrics *metrics);

/* From now on the models and the queue are told too. Both are borrowed until the last print; once only. */
void hr_service_metrics_watch(hr_service_metrics *metrics, hr_repository *repository, hr_pipeline *pipeline);

#endif
