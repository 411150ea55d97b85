/* The CUDA backend: NVIDIA GPUs from compute capability 8.0 on, f32 and bf16. Only in builds with the
 * toolkit. */
#ifndef HOMERANK_KERNELS_CUDA_CUDA_H
#define HOMERANK_KERNELS_CUDA_CUDA_H

#include "kernels/backend.h"

extern const hr_backend_i hr_backend_cuda;

#endif
