/* What every fuzz target defines: one call with one hostile input. See BUILD for how to add a target. */
#ifndef HOMERANK_TESTS_FUZZ_FUZZ_H
#define HOMERANK_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Returns 0. data is borrowed; nothing may be kept or leaked. A broken invariant is an abort(). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

#endif
