/* Grouped products with bf16 operands for devices of compute capability 9.0: what product.h offers for
 * others, and of the same meaning; not of the same bits. */
#ifndef HOMERANK_KERNELS_CUDA_PRODUCT_HOPPER_H
#define HOMERANK_KERNELS_CUDA_PRODUCT_HOPPER_H

#include "kernels/cuda/descriptors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Loads the kernels. Returns a cudaError_t. */
int hr_cuda_product_hopper_prepare(void);

/* Starts a launch of products or feature gates on a stream. Returns a cudaError_t. */
int hr_cuda_product_hopper_launch(const hr_cuda_launch *launch, void *stream);

#ifdef __cplusplus
}
#endif

#endif
