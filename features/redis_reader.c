/* The Redis protocol, read as it comes: see redis_reader.h. Source: the Redis serialization protocol
 * specification, version 2.
 *
 *            "$<n>\r\n"               n bytes                   "\r\n"
 *   IN_LINE -----------> IN_TEXT ----------------> AFTER_TEXT -----------> IN_LINE
 *      any other line: an event, and IN_LINE again
 */
#include "features/redis_reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

void hr_redis_reader_init(hr_redis_reader *r, const hr_redis_reader_i *i, void *context) {
    r->i = i;
    r->context = context;
    r->error[0] = '\0';
    r->state = HR_REDIS_IN_LINE;
    r->line_nbytes = 0;
    r->depth = 0;
}

static hr_redis_read invalid(hr_redis_reader *r, const char *expected, const char *found, size_t nbytes) {
    snprintf(r->error, sizeof r->error, "expected %s, found %s", expected,
             hr_quote(found, nbytes < 24 ? nbytes : 24).text);
    return HR_REDIS_READ_INVALID;
}

static hr_redis_place place_of(const hr_redis_reader *r) {
    return (hr_redis_place){r->depth, r->depth == 0 ? 0 : r->arrays[r->depth - 1].index};
}

/* After the last event of a value: the arrays that end with it, and the reply, if it does. */
static hr_redis_read value_ended(hr_redis_reader *r) {
    while (r->depth > 0) {
        if (++r->arrays[r->depth - 1].index < r->arrays[r->depth - 1].n_elements) return HR_REDIS_READ_ALL;
        r->depth--;
    }
    return r->i->end(r->context) ? HR_REDIS_READ_ALL : HR_REDIS_READ_STOPPED;
}

static hr_redis_read told(hr_redis_reader *r, bool goes_on) {
    return goes_on ? value_ended(r) : HR_REDIS_READ_STOPPED;
}

/* A decimal number as Redis writes it: no '+', no leading zero, no "-0". */
static bool read_number(const char *text, size_t nbytes, int64_t *value) {
    bool negative = nbytes > 0 && text[0] == '-';
    const char *digit = text + negative, *end = text + nbytes;
    if (digit == end || end - digit > 19 || (*digit == '0' && (negative || end - digit > 1))) return false;
    uint64_t magnitude = 0; /* of 19 digits: fits */
    for (; digit < end; digit++) {
        if (*digit < '0' || *digit > '9') return false;
        magnitude = magnitude * 10 + (uint64_t)(*digit - '0');
    }
    if (magnitude > (uint64_t)INT64_MAX + negative) return false;
    *value = negative ? (int64_t)(~magnitude + 1) : (int64_t)magnitude;
    return true;
}

static hr_redis_read array_begins(hr_redis_reader *r, size_t n_elements) {
    if (!r->i->array(r->context, place_of(r), n_elements)) return HR_REDIS_READ_STOPPED;
    if (n_elements == 0) return value_ended(r);
    r->arrays[r->depth].index = 0;
    r->arrays[r->depth].n_elements = n_elements;
    r->depth++;
    return HR_REDIS_READ_ALL;
}

/* A whole line, without its CR LF. */
static hr_redis_read line_read(hr_redis_reader *r, const char *line, size_t nbytes) {
    int64_t n = 0;
    switch (nbytes > 0 ? line[0] : '\0') {
    case '$':
        if (!read_number(line + 1, nbytes - 1, &n) || n < -1 || n > HR_REDIS_MAX_TEXT_NBYTES)
            return invalid(r, "a text's length", line, nbytes);
        if (n < 0) return told(r, r->i->nil(r->context, place_of(r)));
        r->state = HR_REDIS_IN_TEXT;
        r->text_offset = 0;
        r->text_total = (size_t)n;
        return HR_REDIS_READ_ALL;
    case '*':
        if (!read_number(line + 1, nbytes - 1, &n) || n < -1 || n > INT32_MAX)
            return invalid(r, "an array's length", line, nbytes);
        if (n < 0) return told(r, r->i->nil(r->context, place_of(r)));
        if (r->depth == HR_REDIS_MAX_DEPTH) return invalid(r, "fewer arrays inside each other", line, nbytes);
        return array_begins(r, (size_t)n);
    case ':':
        if (!read_number(line + 1, nbytes - 1, &n)) return invalid(r, "an integer", line, nbytes);
        return told(r, r->i->integer(r->context, place_of(r), n));
    case '+':
    case '-': return told(r, r->i->line(r->context, place_of(r), line[0] == '-', line + 1, nbytes - 1));
    default: return invalid(r, "one of + - : $ *", line, nbytes);
    }
}

/* Keeps the beginning of a line that goes on in the next read. */
static hr_redis_read keep_line(hr_redis_reader *r, const char *bytes, size_t nbytes) {
    if (r->line_nbytes < sizeof r->line) {
        size_t room = sizeof r->line - r->line_nbytes;
        memcpy(r->line + r->line_nbytes, bytes, nbytes < room ? nbytes : room);
    }
    r->line_end[0] = nbytes > 1 ? bytes[nbytes - 2] : r->line_end[1];
    r->line_end[1] = bytes[nbytes - 1];
    r->line_nbytes += nbytes;
    if (r->line_nbytes > HR_REDIS_MAX_LINE_NBYTES) return invalid(r, "a line's end", r->line, 24);
    return HR_REDIS_READ_ALL;
}

/* Reads a line, or as much of it as there is; *at goes behind it. A line that stands in one read whole is not
 * copied. Of a longer one than `line` holds the rest is passed over. */
static hr_redis_read read_line(hr_redis_reader *r, const char **at, const char *end) {
    const char *begin = *at, *newline = begin;
    while (newline < end && *newline != '\n') newline++;
    *at = newline < end ? newline + 1 : end;
    if (newline == end || r->line_nbytes > 0) {
        hr_redis_read read = keep_line(r, begin, (size_t)(*at - begin));
        if (read != HR_REDIS_READ_ALL || newline == end) return read;
        size_t nbytes = r->line_nbytes;
        r->line_nbytes = 0;
        if (nbytes < 2 || r->line_end[0] != '\r') return invalid(r, "CR LF", r->line, nbytes);
        nbytes -= 2;
        return line_read(r, r->line, nbytes < sizeof r->line ? nbytes : sizeof r->line - 1);
    }
    size_t nbytes = (size_t)(newline - begin);
    if (nbytes < 1 || newline[-1] != '\r') return invalid(r, "CR LF", begin, nbytes + 1);
    nbytes--;
    if (nbytes > HR_REDIS_MAX_LINE_NBYTES) return invalid(r, "a line's end", begin, nbytes);
    return line_read(r, begin, nbytes < sizeof r->line ? nbytes : sizeof r->line - 1);
}

static hr_redis_read read_text(hr_redis_reader *r, const char **at, const char *end) {
    size_t left = r->text_total - r->text_offset, here = (size_t)(end - *at);
    const hr_redis_piece piece = {*at, left < here ? left : here, r->text_offset, r->text_total};
    if (!r->i->text(r->context, place_of(r), &piece)) return HR_REDIS_READ_STOPPED;
    *at += piece.nbytes;
    r->text_offset += piece.nbytes;
    if (r->text_offset == r->text_total) {
        r->state = HR_REDIS_AFTER_TEXT;
        r->n_after = 0;
    }
    return HR_REDIS_READ_ALL;
}

static hr_redis_read read_after_text(hr_redis_reader *r, const char **at) {
    char byte = *(*at)++;
    if (byte != "\r\n"[r->n_after]) return invalid(r, "CR LF after a text", &byte, 1);
    if (++r->n_after < 2) return HR_REDIS_READ_ALL;
    r->state = HR_REDIS_IN_LINE;
    return value_ended(r);
}

hr_redis_read hr_redis_reader_feed(hr_redis_reader *r, const char *bytes, size_t nbytes) {
    const char *at = bytes, *end = bytes + nbytes;
    hr_redis_read read = HR_REDIS_READ_ALL;
    while (read == HR_REDIS_READ_ALL && at < end) {
        switch (r->state) {
        case HR_REDIS_IN_LINE: read = read_line(r, &at, end); break;
        case HR_REDIS_IN_TEXT: read = read_text(r, &at, end); break;
        case HR_REDIS_AFTER_TEXT: read = read_after_text(r, &at); break;
        }
    }
    return read;
}
