/* The descriptors of the served .proto files, for grpc.reflection.v1alpha: which file holds which symbol.
 *
 * protobuf-c's runtime does not carry them, so a FileDescriptorSet is made by protoc at build time and
 * embedded. Constant once created: any thread.
 */
#ifndef HOMERANK_SERVICE_REFLECTION_H
#define HOMERANK_SERVICE_REFLECTION_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct hr_reflection hr_reflection;

/* A serialised google.protobuf.FileDescriptorProto; owned by the hr_reflection. */
typedef struct hr_reflection_file {
    const char *name; /* as imports say it: "proto/homerank.proto" */
    const uint8_t *bytes;
    size_t nbytes;
} hr_reflection_file;

/* From the embedded set. Errors: OUT_OF_MEMORY, INTERNAL (a set that cannot be read). */
hr_status hr_reflection_create(hr_reflection **reflection, hr_error *err);
void hr_reflection_destroy(hr_reflection *reflection); /* NULL is allowed */

/* NULL where there is none. A symbol is the full name, without a leading dot, of a message, field, enum,
 * value, service or method. */
const hr_reflection_file *hr_reflection_find_file(const hr_reflection *reflection, const char *name);
const hr_reflection_file *hr_reflection_find_symbol(const hr_reflection *reflection, const char *name);

/* The full names of all services. */
const char *const *hr_reflection_services(const hr_reflection *reflection, size_t *n_services);

#endif
