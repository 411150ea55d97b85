/* Softmaxes, weighted sums and self gates (MODEL.md 2.5, 2.6) of a stage's units, on a stream. Returns
 * cudaSuccess (0) or the launch's error. */
#ifndef HOMERANK_KERNELS_CUDA_MIX_H
#define HOMERANK_KERNELS_CUDA_MIX_H

#include "kernels/cuda/descriptors.h"

#ifdef __cplusplus
extern "C" {
#endif

int hr_cuda_mix_prepare(void); /* loads the kernel onto the device */
int hr_cuda_mix_launch(const hr_cuda_launch *launch, void *stream);

#ifdef __cplusplus
}
#endif

#endif
