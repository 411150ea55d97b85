/* homerank.v1.Ranker/RankStream: answers come in the order of the requests.
 *
 * Up to WINDOW messages are in the server at once; while the window is full nothing is read, so HTTP/2's flow
 * control holds the client back. An error of one message ends the stream with that status, once the earlier
 * answers are sent; the later messages are dropped. The client's half-close ends it with OK after the last
 * answer. At shutdown, messages already accepted are answered, then the stream ends with UNAVAILABLE.
 *
 * Under the rpc's lock, but for a job between submit and done, which is the pipeline's. */
#include <string.h>

#include "service/rpc_rank.h"
#include "service/server_state.h"

enum { WINDOW = 16 };

typedef struct stream_job {
    hr_rank_job job;          /* first */
    bool done;                /* answer or job.call.error is set */
    grpc_byte_buffer *answer; /* owned */
} stream_job;

typedef struct rank_stream {
    hr_rpc rpc;              /* first */
    stream_job jobs[WINDOW]; /* a ring: n_jobs from first on, in the order of arrival */
    uint32_t first, n_jobs;
    bool half_closed; /* the client sends no more */
    bool failed;      /* some job's error will end the stream: read no more */
} rank_stream;

static stream_job *job_at(rank_stream *stream, uint32_t position) {
    return &stream->jobs[(stream->first + position) % WINDOW];
}

/* Nobody will be sent these answers; work not yet begun is dropped. The jobs are counted out at release. */
static void abandon(rank_stream *stream) {
    for (uint32_t i = 0; i < stream->n_jobs; i++) hr_rank_job_cancel(&job_at(stream, i)->job);
}

static void pop(rank_stream *stream, bool answered) {
    hr_rank_job_close(&job_at(stream, 0)->job, answered);
    stream->first = (stream->first + 1) % WINDOW;
    stream->n_jobs--;
}

static void on_answer_sent(hr_rpc *rpc, bool ok) {
    pop((rank_stream *)rpc, ok);
}

static void on_ranked(hr_rank_call *call) {
    stream_job *job = (stream_job *)call;
    hr_rpc *rpc = job->job.rpc;
    grpc_byte_buffer *answer = hr_rank_job_pack(&job->job);
    pthread_mutex_lock(&rpc->lock);
    job->answer = answer;
    job->done = true;
    if (call->error.code != HR_OK) ((rank_stream *)rpc)->failed = true;
    pthread_mutex_unlock(&rpc->lock);
    hr_rpc_post(rpc, hr_rpc_advance);
    hr_rpc_unref(rpc);
}

/* The lock is let go while the message is decoded and submitted: done may come at once, on this thread. The
 * order stands, for the next message's event comes to this same thread. */
static void on_message(hr_rpc *rpc, grpc_byte_buffer *message) {
    rank_stream *stream = (rank_stream *)rpc;
    if (message == NULL) {
        stream->half_closed = true;
        return;
    }
    if (rpc->ended) return;
    stream_job *job = job_at(stream, stream->n_jobs);
    memset(job, 0, sizeof *job);
    job->job.call.patient = true; /* the window holds the client back */
    stream->n_jobs++;
    pthread_mutex_unlock(&rpc->lock);
    hr_status status = hr_rank_job_accept(&job->job, rpc, message);
    if (status == HR_OK) hr_rank_job_submit(&job->job, on_ranked);
    pthread_mutex_lock(&rpc->lock);
    if (status == HR_OK) return;
    job->done = true;
    stream->failed = true;
}

static void send_next(rank_stream *stream) {
    hr_rpc *rpc = &stream->rpc;
    if (stream->n_jobs == 0) {
        if (stream->half_closed)
            hr_rpc_end(rpc, NULL, HR_OK, "", NULL);
        else if (hr_server_is_stopping(rpc->server))
            hr_rpc_end(rpc, NULL, HR_UNAVAILABLE, HR_RPC_SHUTTING_DOWN, NULL);
        return;
    }
    stream_job *head = job_at(stream, 0);
    if (!head->done) return;
    const hr_error *error = &head->job.call.error;
    if (error->code == HR_OK) {
        grpc_byte_buffer *answer = head->answer;
        head->answer = NULL;
        hr_rpc_send(rpc, answer, on_answer_sent);
    } else {
        abandon(stream);
        hr_rpc_end(rpc, NULL, error->code, error->message, on_answer_sent);
    }
}

static void stream_advance(hr_rpc *rpc) {
    rank_stream *stream = (rank_stream *)rpc;
    if (rpc->cancelled) {
        abandon(stream);
        return;
    }
    if (!rpc->sending) send_next(stream);
    bool wants_more = !rpc->ended && !stream->half_closed && !stream->failed && stream->n_jobs < WINDOW &&
                      !hr_server_is_stopping(rpc->server);
    if (wants_more && !rpc->reading) hr_rpc_read(rpc, on_message);
}

static void stream_start(hr_rpc *rpc) {
    (void)rpc; /* all is zero already; the first advance reads */
}

static void stream_release(hr_rpc *rpc) {
    rank_stream *stream = (rank_stream *)rpc;
    while (stream->n_jobs > 0) {
        grpc_byte_buffer_destroy(job_at(stream, 0)->answer);
        pop(stream, false);
    }
}

const hr_rpc_method hr_rank_stream_method = {
    .path = "/homerank.v1.Ranker/RankStream",
    .n_slots = 16,
    .nbytes = sizeof(rank_stream),
    .streaming = true,
    .start = stream_start,
    .advance = stream_advance,
    .release = stream_release,
};
