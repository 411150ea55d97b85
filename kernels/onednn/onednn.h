/* The oneDNN backend: a plan's forward pass on the CPU, in f32 or bf16 (DESIGN.md 4). */
#ifndef HOMERANK_KERNELS_ONEDNN_ONEDNN_H
#define HOMERANK_KERNELS_ONEDNN_ONEDNN_H

#include "kernels/backend.h"

extern const hr_backend_i hr_backend_onednn;

#endif
