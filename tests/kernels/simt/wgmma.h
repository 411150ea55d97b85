/* Products under way, for hopper.cc. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_WGMMA_H
#define HOMERANK_TESTS_KERNELS_SIMT_WGMMA_H

namespace simt {

void wgmma_begin(); /* a block */
bool wgmma_left();  /* products under way at its end */

} // namespace simt

#endif
