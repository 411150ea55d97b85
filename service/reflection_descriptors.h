/* The serialised google.protobuf.FileDescriptorSet of the served .proto files; the array is made at build
 * time (service/BUILD). */
#ifndef HOMERANK_SERVICE_REFLECTION_DESCRIPTORS_H
#define HOMERANK_SERVICE_REFLECTION_DESCRIPTORS_H

#include <stddef.h>

extern const unsigned char hr_reflection_descriptors[];
extern const size_t hr_reflection_descriptors_nbytes;

#endif
