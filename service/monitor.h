/* What `homerank serve --http` shows of itself: the metrics of the process and the ranking, and whether it is
 * ready. It is up before the models are loaded and until the last call is done.
 *
 * Every function takes NULL, the monitor of a server without --http. Thread rule: one thread, the one that
 * starts and stops the server.
 */
#ifndef HOMERANK_SERVICE_MONITOR_H
#define HOMERANK_SERVICE_MONITOR_H

#include "base/metrics.h"
#include "base/status.h"
#include "service/pipeline.h"
#include "service/server.h"

typedef struct hr_monitor hr_monitor;

/* Listens at HOST:PORT, not yet ready; "" is no monitor: *monitor is NULL. version: of the product, borrowed.
 * Errors: hr_http_start's. */
hr_status hr_monitor_start(const char *listen, const char *version, hr_monitor **monitor, hr_error *err);

/* Who counts a pipeline's calls; lives until the destroy. NULL of NULL. */
const hr_pipeline_observer *hr_monitor_observer(hr_monitor *monitor);

/* Where a module adds a collector of its own (hr_metrics_add, which takes the NULL of NULL too). */
hr_metrics *hr_monitor_metrics(hr_monitor *monitor);

/* The port bound; 0 of NULL. */
uint16_t hr_monitor_port(const hr_monitor *monitor);

/* From now on it is ready where a model is served. All are borrowed until hr_monitor_close. Errors:
 * OUT_OF_MEMORY. */
hr_status hr_monitor_serving(hr_monitor *monitor, hr_repository *repository, hr_pipeline *pipeline,
                             hr_server *server, hr_error *err);

/* The shutdown begins: not ready any more. */
void hr_monitor_stopping(hr_monitor *monitor);

/* Stops listening; the observer may still be called. */
void hr_monitor_close(hr_monitor *monitor);

/* After the pipeline's. */
void hr_monitor_destroy(hr_monitor *monitor);

#endif
