/* The log: see log.h.
 *
 * A line is put together in a buffer on the stack and written at once. A field that does not fit is left out
 * and the line says so (truncated=true); a long value is cut and ends in "...".
 */
#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"

enum {
    LINE_NBYTES = 8192,
    TAIL_NBYTES = 64,    /* of the line, kept for truncated=true, the closing brace and the newline */
    VALUE_NBYTES = 1024, /* of one string's input */
};

/* Set before threads start, read-only afterwards. */
static hr_log_level lowest = HR_LOG_INFO;
static bool as_json = false;

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const level_labels[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};

typedef struct line {
    size_t length;
    bool full; /* something did not fit */
    char text[LINE_NBYTES];
} line;

static void put(line *l, const char *bytes, size_t nbytes) {
    if (nbytes > LINE_NBYTES - TAIL_NBYTES - l->length) l->full = true;
    if (l->full) return;
    memcpy(l->text + l->length, bytes, nbytes);
    l->length += nbytes;
}

static void put_text(line *l, const char *text) {
    put(l, text, strlen(text));
}

/* One character (or one byte that is none) of a text line: control characters, C1 ones among them, and bytes
 * that are not UTF-8 as \xNN, so that a line stays a line and cannot steer a terminal. */
static void put_text_char(line *l, const char *p, size_t length, bool quoted) {
    unsigned char c = (unsigned char)*p;
    bool is_c1 = length == 2 && c == 0xC2 && (unsigned char)p[1] < 0xA0;
    if (length == 0 || is_c1 || c < 0x20 || c == 0x7F) {
        for (size_t i = 0; i < (length == 0 ? 1 : length); i++) {
            char escape[8];
            put(l, escape, (size_t)snprintf(escape, sizeof escape, "\\x%02x", (unsigned char)p[i]));
        }
    } else {
        if (quoted && (c == '"' || c == '\\')) put(l, "\\", 1);
        put(l, p, length);
    }
}

/* One character of a JSON string; a byte that is not UTF-8 becomes U+FFFD. */
static void put_json_char(line *l, const char *p, size_t length) {
    unsigned char c = (unsigned char)*p;
    if (length == 0) {
        put_text(l, "\\ufffd");
    } else if (c < 0x20 || c == 0x7F) {
        char escape[8];
        put(l, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", c));
    } else {
        if (c == '"' || c == '\\') put(l, "\\", 1);
        put(l, p, length);
    }
}

/* The characters of a string in the line's form, at most VALUE_NBYTES of them. */
static void put_chars(line *l, const char *string, bool quoted) {
    size_t nbytes = strnlen(string, VALUE_NBYTES + 4); /* a character at the cut is seen whole */
    size_t i = 0;
    while (i < nbytes && i < VALUE_NBYTES) {
        size_t length = hr_utf8_char(string + i, nbytes - i);
        if (length > VALUE_NBYTES - i) break;
        if (as_json)
            put_json_char(l, string + i, length);
        else
            put_text_char(l, string + i, length, quoted);
        i += length == 0 ? 1 : length;
    }
    if (i < nbytes) put_text(l, "...");
}

/* Whether a value reads unambiguously without quotes. */
static bool is_plain(const char *string) {
    if (*string == '\0') return false;
    for (const char *p = string; *p != '\0'; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7F || *p == '"' || *p == '=' || *p == '\\')
            return false;
    return true;
}

static void put_string(line *l, const char *string) {
    if (string == NULL) {
        put_text(l, as_json ? "null" : "-");
        return;
    }
    bool quoted = as_json || !is_plain(string);
    if (quoted) put(l, "\"", 1);
    put_chars(l, string, quoted);
    if (quoted) put(l, "\"", 1);
}

static void put_number(line *l, double number) {
    char digits[40];
    if (as_json && !isfinite(number))
        put_text(l, "null");
    else
        put(l, digits, (size_t)snprintf(digits, sizeof digits, "%.9g", number));
}

static void put_value(line *l, const hr_log_field *field) {
    char digits[24];
    switch (field->kind) {
    case HR_LOG_FIELD_STR: put_string(l, field->str); break;
    case HR_LOG_FIELD_INT:
        put(l, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)field->integer));
        break;
    case HR_LOG_FIELD_NUM: put_number(l, field->number); break;
    case HR_LOG_FIELD_END: break;
    }
}

/* A whole field or nothing. */
static void put_field(line *l, const hr_log_field *field) {
    size_t before = l->length;
    if (as_json) {
        put(l, ",\"", 2);
        put_chars(l, field->key, true);
        put(l, "\":", 2);
    } else {
        put(l, " ", 1);
        put_chars(l, field->key, false);
        put(l, "=", 1);
    }
    put_value(l, field);
    if (l->full) l->length = before;
}

static void put_head(line *l, hr_log_level level, const char *message) {
    uint64_t now_us = hr_clock_wall_us();
    time_t seconds = (time_t)(now_us / 1000000);
    struct tm utc;
    char when[64];
    gmtime_r(&seconds, &utc);
    size_t n = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(when + n, sizeof when - n, ".%03uZ", (unsigned)(now_us / 1000 % 1000));
    if (as_json) {
        put_text(l, "{\"time\":\"");
        put_text(l, when);
        put_text(l, "\",\"level\":\"");
        put_text(l, level_names[level]);
        put_text(l, "\",\"message\":\"");
        put_chars(l, message, true);
        put(l, "\"", 1);
    } else {
        put_text(l, when);
        put(l, " ", 1);
        put_text(l, level_labels[level]);
        put(l, " ", 1);
        put_chars(l, message, false);
    }
}

/* Uses the room that put leaves. */
static void finish(line *l) {
    const char *tail =
        as_json ? (l->full ? ",\"truncated\":true}\n" : "}\n") : (l->full ? " truncated=true\n" : "\n");
    size_t nbytes = strlen(tail);
    memcpy(l->text + l->length, tail, nbytes);
    l->length += nbytes;
}

/* Keeps a line whole where a pipe or a signal cuts its write short. */
static pthread_mutex_t stderr_lock = PTHREAD_MUTEX_INITIALIZER;

/* One write, more only where that is cut short. What stderr does not take is lost. */
static void write_out(const line *l) {
    int saved = errno;
    size_t done = 0;
    pthread_mutex_lock(&stderr_lock);
    while (done < l->length) {
        ssize_t n = write(STDERR_FILENO, l->text + done, l->length - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        done += (size_t)n;
    }
    pthread_mutex_unlock(&stderr_lock);
    errno = saved;
}

bool hr_log_enabled(hr_log_level level) {
    return level >= lowest;
}

void hr_log_write_(hr_log_level level, const char *message, ...) {
    line l;
    l.length = 0;
    l.full = false;
    put_head(&l, level, message);
    va_list fields;
    va_start(fields, message);
    for (;;) {
        hr_log_field field = va_arg(fields, hr_log_field);
        if (field.kind == HR_LOG_FIELD_END) break;
        put_field(&l, &field);
    }
    va_end(fields);
    finish(&l);
    write_out(&l);
}

hr_status hr_log_configure(const char *level, const char *form, hr_error *err) {
    size_t found = 0;
    while (found < sizeof level_names / sizeof level_names[0] && strcmp(level, level_names[found]) != 0)
        found++;
    if (found == sizeof level_names / sizeof level_names[0])
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "log level: expected debug, info, warn or error, found %s",
                            hr_quote(level, strlen(level)).text);
    if (strcmp(form, "text") != 0 && strcmp(form, "json") != 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "log form: expected text or json, found %s",
                            hr_quote(form, strlen(form)).text);
    lowest = (hr_log_level)found;
    as_json = strcmp(form, "json") == 0;
    return HR_OK;
}
