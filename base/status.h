/* Status codes and errors.
 *
 * A fallible function returns an hr_status and, on failure, fills its caller's hr_error with one line
 * that names the thing, what was expected and what was found. No library function exits or aborts.
 * Thread rule: an hr_error belongs to one thread at a time.
 */
#ifndef HOMERANK_BASE_STATUS_H
#define HOMERANK_BASE_STATUS_H

#include <stddef.h>

/* X(name, text, the gRPC status code it is answered with) */
#define HR_STATUS_MAP(X)                                                                                     \
    X(OK, "ok", 0)                                                                                           \
    X(CANCELLED, "cancelled", 1)                                                                             \
    X(INVALID_ARGUMENT, "invalid argument", 3)                                                               \
    X(DEADLINE_EXCEEDED, "deadline exceeded", 4)                                                             \
    X(NOT_FOUND, "not found", 5)                                                                             \
    X(PERMISSION_DENIED, "permission denied", 7)                                                             \
    X(RESOURCE_EXHAUSTED, "resource exhausted", 8)                                                           \
    X(OUT_OF_MEMORY, "out of memory", 8)                                                                     \
    X(FAILED_PRECONDITION, "failed precondition", 9)                                                         \
    X(UNIMPLEMENTED, "unimplemented", 12)                                                                    \
    X(INTERNAL, "internal error", 13)                                                                        \
    X(IO, "input/output error", 13)                                                                          \
    X(DEVICE, "device error", 13)                                                                            \
    X(UNAVAILABLE, "unavailable", 14)                                                                        \
    X(UNAUTHENTICATED, "unauthenticated", 16)

typedef enum hr_status {
#define HR_STATUS_ENUM(name, text, grpc) HR_##name,
    HR_STATUS_MAP(HR_STATUS_ENUM)
#undef HR_STATUS_ENUM
} hr_status;

/* gRPC's own name of each of its codes, "NOT_FOUND"; NULL for those that no hr_status stands for. */
enum { HR_GRPC_CODES = 17 };
extern const char *const hr_grpc_code_names[HR_GRPC_CODES];

enum { HR_ERROR_MESSAGE_SIZE = 256 };

typedef struct hr_error {
    hr_status code;
    char message[HR_ERROR_MESSAGE_SIZE]; /* one line, valid UTF-8, NUL-terminated */
} hr_error;

/* The status's text ("not found") and its gRPC code; both static. */
const char *hr_status_text(hr_status status);
int hr_status_grpc_code(hr_status status);

/* Fills err (which may be NULL) and returns code, so that callers write `return hr_error_set(...)`.
 * A message that does not fit is cut at a character's boundary and ends in "...". Bytes of outside origin
 * go through hr_quote first. */
hr_status hr_error_set(hr_error *err, hr_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before err's message; returns err's code. For callers that know the file or the line. */
hr_status hr_error_prefix(hr_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum { HR_QUOTE_SIZE = 72 };
typedef struct hr_quoted {
    char text[HR_QUOTE_SIZE];
} hr_quoted;

/* bytes[0..nbytes) as a double-quoted printable text: control and non-ASCII bytes as \xNN, long ones cut
 * with "...". Use: hr_error_set(err, ..., "unit %s", hr_quote(name, strlen(name)).text). */
hr_quoted hr_quote(const void *bytes, size_t nbytes);

#endif
