/* What sm_90a has beyond machine.h, for the fiber that is running: barriers in shared memory that count
 * bytes, bulk copies, products of four warps.
 *
 * Everything asynchronous happens as late as may be. A bulk load lands when somebody waits for its barrier,
 * until then its bytes may not be touched; a bulk store and a product read shared memory at the wait for
 * them, until then nobody may write there; sums are NaNs until the wait. Who has waited at a barrier knows of
 * what those who arrived there have done, and of the copies that it counted: any other access to the same
 * bytes is a race, in whatever order the threads run. A barrier or a wait that can not end is seen when
 * nothing else can go on.
 *
 * Shared memory is addressed by numbers: shared_at. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_HOPPER_H
#define HOMERANK_TESTS_KERNELS_SIMT_HOPPER_H

#include <cstddef>
#include <cstdint>

namespace simt {

/* A block begins. What it left under way at its end: text, or NULL. */
void hopper_begin();
const char *hopper_left();

void barrier_init(uint32_t barrier, uint32_t count);
/* Arrives, too. */
void barrier_expect(uint32_t barrier, uint32_t nbytes);
void barrier_arrive(uint32_t barrier);
void barrier_wait(uint32_t barrier, uint32_t parity);

/* 128 threads of a block. */
void group_barrier(uint32_t id);

void bulk_load(uint32_t shared, const void *global, uint32_t nbytes, uint32_t barrier);
void bulk_store(void *global, uint32_t shared, uint32_t nbytes);
void bulk_stores_commit();
void bulk_stores_wait();

/* Of threads 128 i on. d: this thread's sums, as in wgmma's m64nNk16. */
void products_begin();
void multiply_group(float *d, uint32_t n, uint64_t a, uint64_t b, bool add);
void products_commit();
void products_wait(uint32_t n_pending);

} // namespace simt

#endif
