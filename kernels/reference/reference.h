/* The reference backend: plain C, one row at a time, f32 storage, double accumulation (DESIGN 4).
 * It runs anywhere, in f32 only, and judges the other backends. */
#ifndef HOMERANK_KERNELS_REFERENCE_REFERENCE_H
#define HOMERANK_KERNELS_REFERENCE_REFERENCE_H

#include "kernels/backend.h"

extern const hr_backend_i hr_backend_reference;

#endif
