/* Grouped products and feature gates (MODEL.md 2.3, 2.4) with bf16 operands, on a stream.
 * hr_cuda_product_prepare must have been called on the device: it lets the kernels have their shared memory.
 * Returns cudaSuccess (0) or the launch's error. */
#ifndef HOMERANK_KERNELS_CUDA_PRODUCT_H
#define HOMERANK_KERNELS_CUDA_PRODUCT_H

#include "kernels/cuda/descriptors.h"

#ifdef __cplusplus
extern "C" {
#endif

int hr_cuda_product_prepare(void);
int hr_cuda_product_launch(const hr_cuda_launch *launch, void *stream);

#ifdef __cplusplus
}
#endif

#endif
