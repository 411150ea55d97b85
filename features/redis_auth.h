/* What a refused AUTH may say. Private to features/. */
#ifndef HOMERANK_FEATURES_REDIS_AUTH_H
#define HOMERANK_FEATURES_REDIS_AUTH_H

#include "base/status.h"

/* The server's error reply to AUTH, quoted up to its first quotation mark: a server that does not know the
 * command repeats its arguments there, the password among them. */
hr_quoted hr_redis_auth_refusal(const char *reply, size_t nbytes);

#endif
