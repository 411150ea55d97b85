/* What happens before what across the C core, told to ThreadSanitizer.
 *
 * Debian's libgrpc is not instrumented, so TSan cannot see that starting a batch happens before its event is
 * taken from the queue. Both ends say so on the batch's tag; other builds compile this to nothing. */
#ifndef HOMERANK_SERVICE_RPC_TSAN_H
#define HOMERANK_SERVICE_RPC_TSAN_H

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define HR_RPC_RELEASE(tag) __tsan_release(tag)
#define HR_RPC_ACQUIRE(tag) __tsan_acquire(tag)
#else
#define HR_RPC_RELEASE(tag) ((void)(tag))
#define HR_RPC_ACQUIRE(tag) ((void)(tag))
#endif

#endif
