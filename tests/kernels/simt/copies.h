/* cp.async, for the fiber that is running: 16 bytes each, which land at the wait that guarantees them and no
 * sooner. Bulk copies: hopper.h. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_COPIES_H
#define HOMERANK_TESTS_KERNELS_SIMT_COPIES_H

#include <cstdint>

namespace simt {

void copies_begin(); /* a block */

void copy_async(void *shared, const void *global);
void copy_commit();
void copy_wait(uint32_t n_pending); /* until no more groups than these are in flight */

} // namespace simt

#endif
