/* v's two parts from encoded rows and embedding tables (MODEL.md 3), on a stream. Returns cudaSuccess (0) or
 * the launch's error. */
#ifndef HOMERANK_KERNELS_CUDA_GATHER_H
#define HOMERANK_KERNELS_CUDA_GATHER_H

#include "kernels/cuda/descriptors.h"

#ifdef __cplusplus
extern "C" {
#endif

int hr_cuda_gather_prepare(void); /* loads the kernel onto the device */
int hr_cuda_gather_launch(const hr_cuda_launch *launch, void *stream);

#ifdef __cplusplus
}
#endif

#endif
