/* Grouped products and feature gates (MODEL.md 2.3, 2.4) in f32, on a stream. Returns cudaSuccess (0) or the
 * launch's error. */
#ifndef HOMERANK_KERNELS_CUDA_PRODUCT_F32_H
#define HOMERANK_KERNELS_CUDA_PRODUCT_F32_H

#include "kernels/cuda/descriptors.h"

#ifdef __cplusplus
extern "C" {
#endif

int hr_cuda_product_f32_prepare(void); /* loads the kernel onto the device */
int hr_cuda_product_f32_launch(const hr_cuda_launch *launch, void *stream);

#ifdef __cplusplus
}
#endif

#endif
