/* Status codes and errors: see status.h. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *text;
    int grpc_code;
} status_rows[] = {
#define HR_STATUS_ROW(name, text, grpc) {text, grpc},
    HR_STATUS_MAP(HR_STATUS_ROW)
#undef HR_STATUS_ROW
};

const char *const hr_grpc_code_names[HR_GRPC_CODES] = {
    [0] = "OK",
    [1] = "CANCELLED",
    [3] = "INVALID_ARGUMENT",
    [4] = "DEADLINE_EXCEEDED",
    [5] = "NOT_FOUND",
    [7] = "PERMISSION_DENIED",
    [8] = "RESOURCE_EXHAUSTED",
    [9] = "FAILED_PRECONDITION",
    [12] = "UNIMPLEMENTED",
    [13] = "INTERNAL",
    [14] = "UNAVAILABLE",
    [16] = "UNAUTHENTICATED",
};

const char *hr_status_text(hr_status status) {
    return status_rows[status].text;
}

int hr_status_grpc_code(hr_status status) {
    return status_rows[status].grpc_code;
}

/* Ends a cut message in "..." after the last whole UTF-8 character. */
static void mark_cut(char *message) {
    size_t end = HR_ERROR_MESSAGE_SIZE - 4;
    while (end > 0 && ((unsigned char)message[end] & 0xC0) == 0x80) end--;
    memcpy(message + end, "...", 4);
}

hr_status hr_error_set(hr_error *err, hr_status code, const char *format, ...) {
    if (err == NULL) return code;
    err->code = code;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n < 0) snprintf(err->message, sizeof err->message, "%s", hr_status_text(code));
    if (n >= (int)sizeof err->message) mark_cut(err->message);
    return code;
}

hr_status hr_error_prefix(hr_error *err, const char *format, ...) {
    if (err == NULL) return HR_INTERNAL;
    char old[HR_ERROR_MESSAGE_SIZE];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n < 0) n = 0;
    if ((size_t)n < sizeof err->message) {
        size_t room = sizeof err->message - (size_t)n;
        int m = snprintf(err->message + n, room, ": %s", old);
        if (m < (int)room) return err->code;
    }
    mark_cut(err->message);
    return err->code;
}

hr_quoted hr_quote(const void *bytes, size_t nbytes) {
    static const char hex[] = "0123456789abcdef";
    const unsigned char *in = bytes;
    hr_quoted quoted;
    char *out = quoted.text;
    /* Room for one escaped byte, "...", the closing quote and the NUL must remain. */
    const char *limit = quoted.text + sizeof quoted.text - (4 + 3 + 1 + 1);
    size_t i = 0;
    *out++ = '"';
    for (; i < nbytes && out <= limit; i++) {
        if (in[i] >= 0x20 && in[i] < 0x7F && in[i] != '"' && in[i] != '\\') {
            *out++ = (char)in[i];
        } else {
            *out++ = '\\';
            *out++ = 'x';
            *out++ = hex[in[i] >> 4];
            *out++ = hex[in[i] & 15];
        }
    }
    if (i < nbytes) {
        memcpy(out, "...", 3);
        out += 3;
    }
    *out++ = '"';
    *out = '\0';
    return quoted;
}
