/* All tasks' towers down to their logits on a stream. Returns cudaSuccess (0) or the launch's error. */
#ifndef HOMERANK_KERNELS_CUDA_TOWER_H
#define HOMERANK_KERNELS_CUDA_TOWER_H

#include "kernels/cuda/descriptors.h"

#ifdef __cplusplus
extern "C" {
#endif

int hr_cuda_tower_prepare(void); /* loads the kernel onto the device */
int hr_cuda_tower_launch(const hr_cuda_launch *launch, void *stream);

#ifdef __cplusplus
}
#endif

#endif
