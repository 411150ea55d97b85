/* The calls of the CUDA runtime that the engine makes, as a table: so that the host's side of the engine is
 * plain C, is built and tested where there is no CUDA, and every call can be made to fail.
 *
 * All return 0 or the runtime's own error code. Streams, events and graphs are opaque. A call concerns the
 * device that its thread chose last by set_device. Any thread.
 */
#ifndef HOMERANK_KERNELS_CUDA_CUDA_RUNTIME_H
#define HOMERANK_KERNELS_CUDA_CUDA_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/cuda/descriptors.h"

typedef struct hr_cuda_device_info {
    char name[64];
    int major, minor; /* compute capability */
    int n_sms;
} hr_cuda_device_info;

typedef struct hr_cuda_runtime {
    int (*device_count)(int *count);
    int (*set_device)(int device);
    int (*device_info)(int device, hr_cuda_device_info *info);
    int (*prepare)(void); /* loads every kernel onto the device, so that none is loaded later */
    int (*memory)(size_t *free_nbytes, size_t *total_nbytes);
    int (*malloc)(void **memory, size_t nbytes);
    int (*free)(void *memory);
    int (*host_malloc)(void **memory, size_t nbytes); /* pinned */
    int (*host_free)(void *memory);
    int (*copy_in)(void *to, const void *from, size_t nbytes, void *stream);  /* host to device */
    int (*copy_out)(void *to, const void *from, size_t nbytes, void *stream); /* device to host */
    int (*clear)(void *memory, size_t nbytes, void *stream);                  /* zeros */
    int (*stream_create)(void **stream);
    int (*stream_destroy)(void *stream);
    int (*stream_wait)(void *stream);
    int (*event_create)(void **event);
    int (*event_destroy)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_wait)(void *event);
    int (*capture_begin)(void *stream);
    int (*capture_end)(void *stream, void **graph); /* ready to run; ends the capture whatever it returns */
    int (*graph_launch)(void *graph, void *stream);
    int (*graph_destroy)(void *graph);
    int (*launch)(const hr_cuda_launch *launch, void *stream);
    const char *(*error_text)(int code); /* static */
} hr_cuda_runtime;

/* The real one; only in builds with the CUDA toolkit. */
extern const hr_cuda_runtime hr_cuda_runtime_device;

#endif
