/* One RankRequest in the server, of a unary call or of a stream: its memory, its way through the pipeline and
 * its place in the counters. */
#ifndef HOMERANK_SERVICE_RPC_RANK_H
#define HOMERANK_SERVICE_RPC_RANK_H

#include <grpc/grpc.h>
#include <stdbool.h>

#include "service/pipeline.h"
#include "service/rpc_call.h"
#include "service/shadow.h"

typedef struct hr_rank_job {
    hr_rank_call call;            /* first: the pipeline hands it back */
    hr_rpc *rpc;                  /* borrowed; a job in the pipeline holds a reference of it */
    bool accepted;                /* counted as open until hr_rank_job_close */
    size_t nbytes;                /* of the decoded request, counted as open until hr_rank_job_pack */
    hr_exposure_lines *exposures; /* owned: what to log once the answer is sent; NULL: nothing */
    hr_shadow_call *shadow;       /* owned: what to begin then; NULL: nothing */
} hr_rank_job;

/* Takes a received message in: limits, an arena, decoding. OK: the job is accepted and wants
 * hr_rank_job_submit. Otherwise it is refused and counted so, and job->call.error says why. */
hr_status hr_rank_job_accept(hr_rank_job *job, hr_rpc *rpc, grpc_byte_buffer *message);

/* Hands an accepted job to the pipeline. done may run at once, on this thread. */
void hr_rank_job_submit(hr_rank_job *job, void (*done)(hr_rank_call *call));

/* Gives a job up: its work not yet begun is dropped. Harmless where it is not in the pipeline (any more). */
void hr_rank_job_cancel(hr_rank_job *job);

/* From done: the packed answer, NULL for an error. Gives the arena back, or to a shadow: the answer's only
 * form is now packed. */
grpc_byte_buffer *hr_rank_job_pack(hr_rank_job *job);

/* Counts the job out, and where its answer was sent logs its exposures and begins its shadow: its answer or
 * error was sent (answered), or there was nobody to send it to. Once. */
void hr_rank_job_close(hr_rank_job *job, bool answered);

#endif
