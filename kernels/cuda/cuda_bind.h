/* A plan's descriptors with the addresses of one worker's memory in them, as one image that is copied to the
 * device once; and the layout of what is copied in for a batch. No CUDA call. Any thread.
 */
#ifndef HOMERANK_KERNELS_CUDA_CUDA_BIND_H
#define HOMERANK_KERNELS_CUDA_CUDA_BIND_H

#include "kernels/cuda/cuda_plan.h"
#include "schema/slice.h"

/* Where things are on the device. */
typedef struct hr_cuda_places {
    const uint8_t *weights;
    const float *const *tables; /* (n_tables) */
    uint8_t *buffers;
    uint32_t *staging;
    float *logits; /* (rows, T) */
    uint8_t *image;
} hr_cuda_places;

/* Offsets of the sections of an image. */
typedef struct hr_cuda_image {
    size_t features, shared_map, items_map, parts, products, tiles, norms, terms, mixes, tower_layers, towers,
        gather;
    size_t nbytes;
} hr_cuda_image;

hr_cuda_image hr_cuda_image_layout(const hr_cuda_plan *plan);

/* Writes the image (image->nbytes, zeroed by the caller). */
void hr_cuda_image_fill(const hr_cuda_plan *plan, const hr_cuda_image *image, const hr_cuda_places *at,
                        uint8_t *to);

/* The launch of a stage for batches of up to `rows` rows. */
hr_cuda_launch hr_cuda_stage_launch(const hr_cuda_plan *plan, const hr_cuda_image *image,
                                    const hr_cuda_places *at, uint32_t stage, uint32_t rows,
                                    hr_cuda_device_kind device);

/* A place in a batch. Slices without rows are stepped over. */
typedef struct hr_cuda_cursor {
    const hr_slice *slices;
    size_t slice;
    uint32_t item; /* in that slice */
} hr_cuda_cursor;

/* The most bytes that staging n_rows rows may take: each may be a slice of its own. */
size_t hr_cuda_staging_nbytes(const hr_plan *plan, uint32_t n_rows);

/* Writes the next n_rows > 0 rows (the batch must have them) to `to` and moves the cursor on. Returns the
 * bytes written, at most hr_cuda_staging_nbytes. */
size_t hr_cuda_stage_rows(const hr_plan *plan, hr_cuda_cursor *cursor, uint32_t n_rows, uint32_t *to);

/* Copies logits (n_rows, T) to where those of the next n_rows rows belong. */
void hr_cuda_hand_out(const hr_plan *plan, hr_cuda_cursor cursor, uint32_t n_rows, const float *logits);

#endif
