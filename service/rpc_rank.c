/* homerank.v1.Ranker/Rank, and what it shares with RankStream: see rpc_rank.h.
 *
 * The poller decodes and submits; the pipeline's worker packs the answer into the bytes that go out; the
 * poller starts the one batch that sends everything. */
#include "service/rpc_rank.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "service/server_state.h"

typedef struct unary_rank {
    hr_rpc rpc; /* first */
    hr_rank_job job;
    grpc_byte_buffer *packed; /* owned; from ranked to answered */
    bool answered;            /* on the poller */
} unary_rank;

/* One more in the server, or RESOURCE_EXHAUSTED. */
static hr_status enter(hr_server *server, hr_error *err) {
    uint32_t max = server->options.max_open_calls;
    if (hr_server_is_stopping(server)) return hr_error_set(err, HR_UNAVAILABLE, HR_RPC_SHUTTING_DOWN);
    if (atomic_fetch_add(&server->n_open, 1) < max) return HR_OK;
    atomic_fetch_sub(&server->n_open, 1);
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                        "%u requests are in the server already, the most it takes", max);
}

/* A small message may decode to much: the queue's bounds on calls and items say nothing of memory. */
static hr_status reserve_memory(hr_rank_job *job) {
    hr_server *server = job->rpc->server;
    const uint64_t max = server->options.max_open_nbytes;
    job->nbytes = hr_arena_used(job->call.arena);
    if (atomic_fetch_add(&server->n_open_nbytes, job->nbytes) + job->nbytes <= max) return HR_OK;
    atomic_fetch_sub(&server->n_open_nbytes, job->nbytes);
    return hr_error_set(
        &job->call.error, HR_RESOURCE_EXHAUSTED,
        "the requests in the server may take %llu bytes together; this one's %zu are too many",
        (unsigned long long)max, job->nbytes);
}

static hr_status decode(hr_rank_job *job, grpc_byte_buffer *message) {
    hr_error *err = &job->call.error;
    job->call.arena = hr_poller_take_arena(job->rpc->poller);
    if (job->call.arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for one more request");
    ProtobufCMessage *request = NULL;
    hr_status status =
        hr_rpc_unpack(&homerank__v1__rank_request__descriptor, message, job->call.arena, &request, err);
    job->call.request = (const Homerank__V1__RankRequest *)request;
    return status == HR_OK ? reserve_memory(job) : status;
}

hr_status hr_rank_job_accept(hr_rank_job *job, hr_rpc *rpc, grpc_byte_buffer *message) {
    hr_server *server = rpc->server;
    job->rpc = rpc;
    job->call.received_ns = hr_clock_ns();
    job->call.deadline_ns = hr_rpc_deadline_ns(rpc);
    hr_status status = enter(server, &job->call.error);
    if (status == HR_OK) {
        status = decode(job, message);
        if (status != HR_OK) atomic_fetch_sub(&server->n_open, 1);
    }
    job->accepted = status == HR_OK;
    if (job->accepted) {
        atomic_fetch_add(&server->accepted, 1);
        return HR_OK;
    }
    atomic_fetch_add(&server->refused, 1);
    atomic_fetch_add(&server->refused_by_code[hr_status_grpc_code(status)], 1);
    if (job->call.arena != NULL) hr_poller_put_arena(rpc->poller, job->call.arena);
    job->call.arena = NULL;
    return status;
}

void hr_rank_job_submit(hr_rank_job *job, void (*done)(hr_rank_call *call)) {
    job->call.done = done;
    job->call.priority = job->call.request->priority == 1 ? HR_CLASS_BATCH : HR_CLASS_NORMAL;
    hr_rpc_ref(job->rpc);
    hr_pipeline_submit(hr_server_pipeline(job->rpc->server), &job->call);
}

void hr_rank_job_cancel(hr_rank_job *job) {
    hr_pipeline_cancel(hr_server_pipeline(job->rpc->server), &job->call);
}

/* An answer's exposures are made while its memory is there, and logged only when it was sent. */
static void make_exposures(hr_rank_job *job) {
    const hr_rank_call *call = &job->call;
    if (job->rpc->server->options.exposures == NULL || call->error.code != HR_OK) return;
    if (call->response->n_experiments == 0) return;
    job->exposures =
        hr_exposure_lines_make(call->request, call->response, call->experiments_version, hr_clock_wall_us());
    if (job->exposures == NULL) hr_log(HR_LOG_ERROR, "out of memory for an answer's exposures");
}

static void give_memory_back(void *arg, hr_arena *arena, size_t nbytes) {
    hr_poller *poller = arg;
    hr_poller_put_arena(poller, arena);
    atomic_fetch_sub(&poller->server->n_open_nbytes, nbytes);
}

/* The memory of a request that has a shadow is the shadow's from now on. */
static void prepare_shadow(hr_rank_job *job) {
    hr_rank_call *call = &job->call;
    hr_shadow *shadow = job->rpc->server->options.shadow;
    if (shadow == NULL || call->error.code != HR_OK || call->shadow_model == NULL) return;
    job->shadow = hr_shadow_prepare(shadow, call, job->nbytes, give_memory_back, job->rpc->poller);
}

grpc_byte_buffer *hr_rank_job_pack(hr_rank_job *job) {
    make_exposures(job);
    grpc_byte_buffer *answer = job->call.error.code == HR_OK ? hr_rpc_pack(&job->call.response->base) : NULL;
    prepare_shadow(job);
    if (job->call.arena != NULL) give_memory_back(job->rpc->poller, job->call.arena, job->nbytes);
    job->call.arena = NULL;
    return answer;
}

void hr_rank_job_close(hr_rank_job *job, bool answered) {
    if (!job->accepted) return;
    job->accepted = false;
    hr_server *server = job->rpc->server;
    if (answered && job->exposures != NULL)
        hr_exposures_log(server->options.exposures, job->exposures);
    else
        free(job->exposures);
    job->exposures = NULL;
    if (job->shadow != NULL) (answered ? hr_shadow_start : hr_shadow_drop)(job->shadow);
    job->shadow = NULL;
    atomic_fetch_add(answered ? &server->answered : &server->cancelled, 1);
    atomic_fetch_sub(&server->n_open, 1);
}

static void unary_on_sent(hr_rpc *rpc, bool ok) {
    ((unary_rank *)rpc)->answered = ok;
}

static void unary_answer(unary_rank *rank, grpc_byte_buffer *answer) {
    const hr_error *error = &rank->job.call.error;
    hr_rpc_end(&rank->rpc, answer, error->code, error->code == HR_OK ? "" : error->message, unary_on_sent);
}

static void unary_send_ranked(hr_rpc *rpc) {
    unary_rank *rank = (unary_rank *)rpc;
    unary_answer(rank, rank->packed);
}

static void unary_on_ranked(hr_rank_call *call) {
    unary_rank *rank = (unary_rank *)((hr_rank_job *)call)->rpc;
    rank->packed = hr_rank_job_pack(&rank->job);
    hr_rpc_post(&rank->rpc, unary_send_ranked);
    hr_rpc_unref(&rank->rpc);
}

static void unary_start(hr_rpc *rpc) {
    unary_rank *rank = (unary_rank *)rpc;
    hr_status status = hr_rank_job_accept(&rank->job, rpc, rpc->payload);
    grpc_byte_buffer_destroy(rpc->payload);
    rpc->payload = NULL;
    if (status == HR_OK)
        hr_rank_job_submit(&rank->job, unary_on_ranked);
    else
        unary_answer(rank, NULL);
}

static void unary_cancel(hr_rpc *rpc) {
    hr_rank_job_cancel(&((unary_rank *)rpc)->job);
}

static void unary_release(hr_rpc *rpc) {
    unary_rank *rank = (unary_rank *)rpc;
    hr_rank_job_close(&rank->job, rank->answered);
}

const hr_rpc_method hr_rank_method = {
    .path = "/homerank.v1.Ranker/Rank",
    .n_slots = 64,
    .nbytes = sizeof(unary_rank),
    .takes_payload = true,
    .start = unary_start,
    .cancel = unary_cancel,
    .release = unary_release,
};
