/* What a load generator sends: RankRequests, packed once before the run, sent in turn.
 *
 * Read from a file of JSON lines as `homerank score` reads them, or made up from ranges of ids. Constant once
 * made: any thread may read.
 */
#ifndef HOMERANK_SERVICE_LOAD_REQUESTS_H
#define HOMERANK_SERVICE_LOAD_REQUESTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct hr_load_requests hr_load_requests;

typedef struct hr_load_request {
    const uint8_t *data; /* a packed RankRequest; the requests' */
    size_t nbytes;
    uint32_t n_items;
} hr_load_request;

typedef struct hr_load_requests_options {
    const char *in;       /* JSON lines; "": made up from what follows */
    const char *sizes;    /* items of a request: "500", or "1,100,500", each as often as the others */
    const char *item_ids; /* "v0..v99999"; a request's items are distinct */
    const char *users;    /* "u0..u9999" */
    const char *zipf;     /* how unequally items and users are drawn: "1.0"; "0" is uniform */
    uint32_t n_requests;  /* at most; a file may have more lines */
    uint64_t seed;
    const char *model; /* RankRequest.model of all; "": as in the file */
    uint32_t priority; /* RankRequest.priority of all, where not 0 */
} hr_load_requests_options;

/* Errors: INVALID_ARGUMENT naming the flag, or FILE:LINE (a bad line); NOT_FOUND, IO (the file);
 * RESOURCE_EXHAUSTED where the packed requests are too large to keep; OUT_OF_MEMORY. */
hr_status hr_load_requests_create(const hr_load_requests_options *options, hr_load_requests **requests,
                                  hr_error *err);
void hr_load_requests_destroy(hr_load_requests *requests); /* NULL is allowed */

uint32_t hr_load_requests_count(const hr_load_requests *requests); /* >= 1 */

/* The index-th of them, in turn for ever. */
const hr_load_request *hr_load_requests_get(const hr_load_requests *requests, uint64_t index);

#endif
