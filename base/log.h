/* Structured log to stderr: one line an event, as text or JSON, a message and key-value fields.
 *
 *     hr_log(HR_LOG_INFO, "model loaded", HR_LOG_STR("model", label), HR_LOG_INT("tensors", n));
 *
 * Thread-safe; a line is written with one write(2). The level and form are set once, before threads start.
 * String values may hold any bytes: they are escaped.
 */
#ifndef HOMERANK_BASE_LOG_H
#define HOMERANK_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef enum hr_log_level { HR_LOG_DEBUG, HR_LOG_INFO, HR_LOG_WARN, HR_LOG_ERROR } hr_log_level;

typedef struct hr_log_field {
    enum { HR_LOG_FIELD_END, HR_LOG_FIELD_STR, HR_LOG_FIELD_INT, HR_LOG_FIELD_NUM } kind;
    const char *key;
    const char *str;
    int64_t integer;
    double number;
} hr_log_field;

#define HR_LOG_STR(k, v) ((hr_log_field){.kind = HR_LOG_FIELD_STR, .key = (k), .str = (v)})
#define HR_LOG_INT(k, v) ((hr_log_field){.kind = HR_LOG_FIELD_INT, .key = (k), .integer = (int64_t)(v)})
#define HR_LOG_NUM(k, v) ((hr_log_field){.kind = HR_LOG_FIELD_NUM, .key = (k), .number = (v)})

/* Fields are evaluated only where the level is enabled. */
#define hr_log(level, ...)                                                                                   \
    do {                                                                                                     \
        if (hr_log_enabled(level))                                                                           \
            hr_log_write_(level, __VA_ARGS__, (hr_log_field){.kind = HR_LOG_FIELD_END});                     \
    } while (0)

bool hr_log_enabled(hr_log_level level);
void hr_log_write_(hr_log_level level, const char *message, ...);

/* level: "debug", "info", "warn" or "error"; form: "text" or "json". INVALID_ARGUMENT otherwise. */
hr_status hr_log_configure(const char *level, const char *form, hr_error *err);

#endif
