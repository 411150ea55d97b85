/* A variation that a request wants to see, whatever its user's bucket. */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_FORCED_VARIATION_H
#define HOMERANK_SERVICE_EXPERIMENTS_FORCED_VARIATION_H

#include <stdint.h>

typedef struct hr_forced_variation {
    const char *experiment; /* its key; borrowed */
    int32_t variation;      /* one that the experiment lacks leaves the user out */
} hr_forced_variation;

#endif
