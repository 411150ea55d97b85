/* A lane: see load_lane.h.
 *
 * The sender sleeps until a call is due (clock_nanosleep with the thread's timer slack off: the core's own
 * timers know milliseconds only), starts it and waits for no answer. The receiver waits on the lane's
 * completion queue and records what came; in a closed loop it also sends the next call. What both touch is
 * under the lane's lock.
 */
#include "service/load_lane.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"
#include "service/load_random.h"
#include "service/load_rpc.h"
#include "service/rpc_tsan.h"

static const uint64_t MAX_SLEEP_NS = 100000000;        /* a stop is seen within this */
static const uint64_t TOO_LATE_NS = 1000000000;        /* past the plan's end nothing more is sent */
static const uint64_t UNBOUNDED_WAIT_NS = 30000000000; /* at the end, for calls that have no deadline */
static const uint64_t DEADLINE_SLACK_NS = 1000000000;  /* and beyond the deadline, for those that have one */
static const uint64_t CORE_TICK_NS = 1000000;          /* how coarse the core's deadlines are */

struct hr_load_lane {
    const hr_load_options *options;
    const hr_load_plan *plan;
    const hr_load_requests *requests;
    hr_load_share share;
    uint32_t max_in_flight;          /* of this lane, in either kind of loop */
    hr_load_connection *connections; /* (share.n_connections) owned */
    grpc_completion_queue *queue;
    uint64_t start_ns, end_ns; /* of the plan, hr_clock_ns */
    pthread_t sender, receiver;
    bool queue_is_drained;   /* main thread's */
    hr_load_random arrivals; /* the sender's */
    hr_load_stats *stats;    /* owned; the receiver's while it runs */
    hr_load_stats *unsent;   /* owned; the sender's while it runs */

    pthread_mutex_t lock; /* guards the rest, and every call's `core` */
    pthread_cond_t idle;  /* n_in_flight became 0; CLOCK_MONOTONIC */
    hr_load_call *free_calls, *all_calls;
    uint32_t n_in_flight;
    bool over; /* no call is begun any more */
    uint64_t n_begun;
    hr_load_random cancels;
    hr_load_call *to_cancel; /* in flight, to be cancelled when the next is sent; NULL: none */
};

static bool must_stop(const hr_load_lane *lane) {
    return lane->options->stop != NULL && atomic_load(lane->options->stop);
}

/* ---- A call's begin and end ---- */

/* One of the free calls, or a new one; NULL when out of memory. Lock held. */
static hr_load_call *free_call(hr_load_lane *lane) {
    hr_load_call *call = lane->free_calls;
    if (call != NULL) {
        lane->free_calls = call->next;
        return call;
    }
    call = calloc(1, sizeof *call);
    if (call == NULL) return NULL;
    call->older = lane->all_calls;
    lane->all_calls = call;
    return call;
}

/* A call to begin, and its number; NULL where as many as may be are in flight. */
static hr_load_call *take_call(hr_load_lane *lane, uint64_t *number) {
    hr_load_call *call = NULL;
    pthread_mutex_lock(&lane->lock);
    if (!lane->over && lane->n_in_flight < lane->max_in_flight) call = free_call(lane);
    if (call != NULL) {
        lane->n_in_flight++;
        *number = lane->n_begun++;
    }
    pthread_mutex_unlock(&lane->lock);
    return call;
}

static void put_call(hr_load_lane *lane, hr_load_call *call) {
    pthread_mutex_lock(&lane->lock);
    grpc_call *core = call->core;
    call->core = NULL;
    if (lane->to_cancel == call) lane->to_cancel = NULL;
    call->next = lane->free_calls;
    lane->free_calls = call;
    if (--lane->n_in_flight == 0) pthread_cond_signal(&lane->idle);
    pthread_mutex_unlock(&lane->lock);
    grpc_call_unref(core);
}

/* The call just sent has its turn to be chosen; the one chosen before is cancelled under way. */
static void cancel_one(hr_load_lane *lane, hr_load_call *call) {
    if (lane->options->cancel_percent == 0) return;
    pthread_mutex_lock(&lane->lock);
    if (lane->to_cancel != NULL) grpc_call_cancel(lane->to_cancel->core, NULL);
    bool chosen = hr_load_random_next(&lane->cancels) % 100 < lane->options->cancel_percent;
    /* the call may be over by now, and its place used again: it is in flight where it has a core */
    lane->to_cancel = chosen && call->core != NULL ? call : NULL;
    pthread_mutex_unlock(&lane->lock);
}

/* Sends the next call, due at intended_ns; false where it cannot be sent. */
static bool send_call(hr_load_lane *lane, uint64_t intended_ns) {
    uint64_t number = 0;
    hr_load_call *call = take_call(lane, &number);
    if (call == NULL) return false;
    call->intended_ns = intended_ns;
    call->sent_ns = hr_clock_ns();
    grpc_call *core = hr_load_call_open(&lane->connections[number % lane->share.n_connections], lane->queue,
                                        lane->options->timeout_ms);
    pthread_mutex_lock(&lane->lock);
    call->core = core;
    pthread_mutex_unlock(&lane->lock);
    const uint64_t index = number * lane->share.n_lanes + lane->share.index;
    if (!hr_load_call_start(call, hr_load_requests_get(lane->requests, index))) {
        hr_load_call_clear(call);
        put_call(lane, call);
        return false;
    }
    cancel_one(lane, call);
    return true;
}

static void record(hr_load_lane *lane, const hr_load_call *call, uint64_t now_ns) {
    const uint64_t timeout_ns = (uint64_t)lane->options->timeout_ms * 1000000;
    hr_load_outcome outcome = {
        .intended_ns = call->intended_ns - lane->start_ns,
        .lag_ns = call->sent_ns - call->intended_ns,
        .latency_ns = now_ns - call->intended_ns,
    };
    hr_load_call_read(call, now_ns - call->sent_ns + CORE_TICK_NS >= timeout_ns, &outcome);
    hr_load_stats_record(lane->stats, &outcome);
}

static void *run_receiver(void *arg) {
    hr_load_lane *lane = arg;
    for (;;) {
        grpc_event event = grpc_completion_queue_next(lane->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN) return NULL;
        hr_load_call *call = event.tag;
        HR_RPC_ACQUIRE(call);
        uint64_t now_ns = hr_clock_ns();
        record(lane, call, now_ns);
        hr_load_call_clear(call);
        put_call(lane, call);
        if (lane->plan->n_in_flight == 0 || must_stop(lane)) continue;
        now_ns = hr_clock_ns();
        if (now_ns < lane->end_ns) send_call(lane, now_ns);
    }
}

/* ---- The sender ---- */

/* Sleeps until then (not at all where it has passed); false where the run is to stop. */
static bool sleep_until(const hr_load_lane *lane, uint64_t then_ns) {
    for (;;) {
        uint64_t now_ns = hr_clock_ns();
        if (must_stop(lane)) return false;
        if (now_ns >= then_ns) return true;
        uint64_t until_ns = then_ns - now_ns > MAX_SLEEP_NS ? now_ns + MAX_SLEEP_NS : then_ns;
        const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                                       .tv_nsec = (long)(until_ns % 1000000000)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
}

/* The lanes' Poisson processes together make one of the phase's rate; having no memory, one may begin anew
 * with every phase. False where the run is to stop. */
static bool send_phase(hr_load_lane *lane, const hr_load_phase *phase) {
    if (phase->rate <= 0) return sleep_until(lane, lane->start_ns + phase->end_ns);
    const double mean_ns = 1e9 * lane->share.n_lanes / phase->rate;
    double at_ns = (double)phase->begin_ns;
    for (;;) {
        at_ns += hr_load_random_exponential(&lane->arrivals, mean_ns);
        if (at_ns >= (double)phase->end_ns) return true;
        const uint64_t due_ns = lane->start_ns + (uint64_t)at_ns;
        if (!sleep_until(lane, due_ns)) return false;
        if (hr_clock_ns() > lane->end_ns + TOO_LATE_NS || !send_call(lane, due_ns))
            hr_load_stats_not_sent(lane->unsent, (uint64_t)at_ns);
    }
}

static void send_closed(hr_load_lane *lane) {
    if (!sleep_until(lane, lane->start_ns)) return;
    for (uint32_t i = 0; i < lane->max_in_flight; i++) send_call(lane, hr_clock_ns());
    sleep_until(lane, lane->end_ns);
}

static void send_open(hr_load_lane *lane) {
    for (uint32_t p = 0; p < lane->plan->n_phases; p++)
        if (!send_phase(lane, &lane->plan->phases[p])) return;
}

/* Waits for the calls in flight as long as they may take, then cancels the rest and waits for that. */
static void drain(hr_load_lane *lane) {
    const uint64_t timeout_ns = (uint64_t)lane->options->timeout_ms * 1000000;
    const uint64_t until_ns =
        hr_clock_ns() + (timeout_ns > 0 ? timeout_ns + DEADLINE_SLACK_NS : UNBOUNDED_WAIT_NS);
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                                   .tv_nsec = (long)(until_ns % 1000000000)};
    pthread_mutex_lock(&lane->lock);
    lane->over = true;
    if (lane->to_cancel != NULL) grpc_call_cancel(lane->to_cancel->core, NULL);
    lane->to_cancel = NULL;
    int timed_out = 0;
    while (lane->n_in_flight > 0 && timed_out == 0)
        timed_out = pthread_cond_timedwait(&lane->idle, &lane->lock, &until);
    for (hr_load_call *call = lane->all_calls; call != NULL; call = call->older)
        if (call->core != NULL)
            grpc_call_cancel_with_status(call->core, GRPC_STATUS_DEADLINE_EXCEEDED,
                                         "no answer by the end of the run", NULL);
    while (lane->n_in_flight > 0) pthread_cond_wait(&lane->idle, &lane->lock);
    pthread_mutex_unlock(&lane->lock);
}

static void *run_sender(void *arg) {
    hr_load_lane *lane = arg;
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (lane->plan->n_in_flight > 0)
        send_closed(lane);
    else
        send_open(lane);
    drain(lane);
    grpc_completion_queue_shutdown(lane->queue);
    return NULL;
}

/* ---- Life ---- */

static hr_status open_connections(hr_load_lane *lane, hr_error *err) {
    for (uint32_t i = 0; i < lane->share.n_connections; i++) {
        hr_status status =
            hr_load_connection_open(&lane->connections[i], lane->options->target, lane->queue, err);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

static void init_locks(hr_load_lane *lane) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&lane->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&lane->lock, NULL);
}

hr_status hr_load_lane_create(const hr_load_options *options, const hr_load_plan *plan,
                              const hr_load_requests *requests, const hr_load_share *share,
                              hr_load_lane **lane, hr_error *err) {
    hr_load_lane *made = calloc(1, sizeof *made);
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the load generator");
    made->options = options;
    made->plan = plan;
    made->requests = requests;
    made->share = *share;
    made->max_in_flight = plan->n_in_flight > 0 ? share->n_in_flight : share->max_in_flight;
    hr_load_random seeds = {.state = options->seed + share->index};
    made->arrivals.state = hr_load_random_next(&seeds);
    made->cancels.state = hr_load_random_next(&seeds);
    init_locks(made);
    made->queue = grpc_completion_queue_create_for_next(NULL);
    made->connections = calloc(share->n_connections, sizeof *made->connections);
    made->stats = hr_load_stats_create(plan);
    made->unsent = hr_load_stats_create(plan);
    hr_status status = made->connections == NULL || made->stats == NULL || made->unsent == NULL
                           ? hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the load generator")
                           : open_connections(made, err);
    if (status == HR_OK)
        *lane = made;
    else
        hr_load_lane_destroy(made);
    return status;
}

hr_status hr_load_lane_start(hr_load_lane *lane, uint64_t start_ns, hr_error *err) {
    lane->start_ns = start_ns;
    lane->end_ns = start_ns + hr_load_plan_end_ns(lane->plan);
    hr_status status = hr_thread_start(&lane->receiver, "load-receiver", run_receiver, lane, err);
    if (status != HR_OK) return status;
    status = hr_thread_start(&lane->sender, "load-sender", run_sender, lane, err);
    if (status == HR_OK) return HR_OK;
    grpc_completion_queue_shutdown(lane->queue);
    pthread_join(lane->receiver, NULL);
    lane->queue_is_drained = true;
    return status;
}

const hr_load_stats *hr_load_lane_join(hr_load_lane *lane) {
    pthread_join(lane->sender, NULL);
    pthread_join(lane->receiver, NULL);
    lane->queue_is_drained = true;
    hr_load_stats_merge(lane->stats, lane->unsent);
    return lane->stats;
}

void hr_load_lane_destroy(hr_load_lane *lane) {
    if (lane == NULL) return;
    for (uint32_t i = 0; lane->connections != NULL && i < lane->share.n_connections; i++)
        hr_load_connection_close(&lane->connections[i]);
    if (!lane->queue_is_drained) {
        grpc_completion_queue_shutdown(lane->queue);
        run_receiver(lane); /* finds the queue empty */
    }
    grpc_completion_queue_destroy(lane->queue);
    while (lane->all_calls != NULL) {
        hr_load_call *call = lane->all_calls;
        lane->all_calls = call->older;
        free(call);
    }
    hr_load_stats_destroy(lane->unsent);
    hr_load_stats_destroy(lane->stats);
    free(lane->connections);
    pthread_cond_destroy(&lane->idle);
    pthread_mutex_destroy(&lane->lock);
    free(lane);
}
