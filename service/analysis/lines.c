/* Files of JSON objects: see lines.h. */
#include "service/analysis/lines.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/text_file.h"
#include "proto/json.h"

enum { LINE_MAX_NBYTES = 1 << 20 };

static hr_status take_line(const char *line, size_t nbytes, hr_line_take take, void *arg, hr_error *err) {
    json_t *object = NULL;
    hr_status status = hr_json_parse(line, nbytes, &object, err);
    if (status == HR_OK && !json_is_object(object))
        status =
            hr_error_set(err, HR_INVALID_ARGUMENT, "expected a JSON object, found another kind of value");
    if (status == HR_OK) status = take(arg, object, err);
    json_decref(object);
    return status;
}

static void say_bad(const char *path, uint64_t line, const char *why, FILE *messages, uint64_t n_before) {
    if (n_before < HR_BAD_LINES_SAID) fprintf(messages, "%s:%" PRIu64 ": %s\n", path, line, why);
    if (n_before == HR_BAD_LINES_SAID) fprintf(messages, "%s: more bad lines follow\n", path);
}

hr_status hr_lines_read(const char *path, hr_line_take take, void *arg, FILE *messages, uint64_t *n_bad,
                        hr_error *err) {
    hr_line_reader *reader;
    hr_status status = hr_line_reader_open(path, LINE_MAX_NBYTES, NULL, &reader, err);
    uint64_t n_bad_here = 0;
    while (status == HR_OK) {
        const char *line;
        size_t nbytes;
        status = hr_line_reader_next(reader, &line, &nbytes, err);
        if (status == HR_OK && line == NULL) break;
        if (status == HR_OK) status = take_line(line, nbytes, take, arg, err);
        if (status != HR_INVALID_ARGUMENT) continue;
        say_bad(path, hr_line_reader_number(reader), err->message, messages, n_bad_here++);
        status = HR_OK;
    }
    *n_bad += n_bad_here;
    hr_line_reader_close(reader);
    return status;
}

hr_status hr_line_text(const json_t *object, const char *key, const char **text, hr_error *err) {
    const json_t *value = json_object_get(object, key);
    *text = json_string_value(value);
    if (*text != NULL) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected a string, found %s", key,
                        value == NULL ? "nothing" : "another kind of value");
}

/* "2026-11-23T16:40:00", then perhaps ".123", then "Z". */
static bool parse_time(const char *text, int64_t *time_us) {
    struct tm parts = {0};
    const char *at = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    if (at == NULL) return false;
    int64_t us = 0, unit = 100000;
    if (*at == '.') {
        for (at++; *at >= '0' && *at <= '9'; at++, unit /= 10) us += unit * (*at - '0');
    }
    if (strcmp(at, "Z") != 0) return false;
    *time_us = (int64_t)timegm(&parts) * 1000000 + us;
    return true;
}

hr_status hr_line_time(const json_t *object, const char *key, bool *is_there, int64_t *time_us,
                       hr_error *err) {
    const json_t *value = json_object_get(object, key);
    *is_there = value != NULL;
    if (value == NULL) return HR_OK;
    double seconds = json_number_value(value);
    if (json_is_number(value) && fabs(seconds) < 1e12) {
        *time_us = (int64_t)(seconds * 1e6);
        return HR_OK;
    }
    if (json_is_string(value) && parse_time(json_string_value(value), time_us)) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "%s: expected a time like \"2026-11-23T16:40:00.123Z\" or seconds since 1970", key);
}
