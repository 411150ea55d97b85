/* Who is admitted: see scheduler.h. Everything but the words is under the lock. */
#include "base/clock.h"
#include "service/scheduler_internal.h"

#define MS UINT64_C(1000000)
static const uint64_t NO_DEADLINE_NS = 1000 * MS; /* after its arrival, in the order only */
static const uint64_t FRESH_NS = 1000 * MS;       /* an older measurement refuses nobody */
static const uint64_t SHORTEST_WAIT_NS = 10 * MS; /* of the automatic bound */
static const uint64_t BURST_NS = 40 * MS;         /* what a burst may wait beyond it */
enum { WAIT_IN_SERVICES = 9, MEAN_OVER_CALLS = 256, FRESH_BATCHES = 4 };

static double ms(uint64_t ns) {
    return (double)ns / (double)MS;
}

/* Work that goes before a call of this class and key: of earlier classes all of it. */
static uint64_t work_ahead_ns(const hr_scheduler *s, hr_call_class class, uint64_t key_ns) {
    uint64_t work_ns = 0;
    for (hr_call_class c = 0; c <= class; c++) {
        work_ns += s->pending_ns[c];
        for (const hr_lane *lane = s->lanes; lane != NULL; lane = lane->next)
            work_ns += hr_deadline_tree_work_until(&lane->trees[c], c < class ? UINT64_MAX : key_ns);
    }
    return work_ns;
}

/* How long the call will wait for a worker, as far as is known: not at all for one that has nothing to do,
 * whatever the store still keeps back. */
static uint64_t expected_wait_ns(const hr_scheduler *s, const hr_scheduled *call, uint64_t now_ns) {
    uint64_t n_ready = 0;
    for (hr_call_class c = 0; c <= call->class; c++) n_ready += s->ready_rows[c];
    if (n_ready == 0 && s->n_waiting > 0) return 0;
    uint64_t work_ns = work_ahead_ns(s, call->class, call->node.key_ns);
    int64_t running_ns = (int64_t)(s->busy_until_ns - s->n_busy * now_ns);
    if (running_ns > 0) work_ns += (uint64_t)running_ns;
    return work_ns / s->options.n_workers;
}

static const hr_verdict ADMITTED = {.status = HR_OK, .refusal = HR_REFUSAL_NONE};

static hr_verdict check_room(const hr_scheduler *s, const hr_scheduled *call) {
    uint64_t n_calls = 0, n_rows = 0;
    for (int c = HR_CLASS_COUNT - 1; c >= 0; c--) { /* a class's bound holds for it and the later ones */
        n_calls += s->n_calls[c];
        n_rows += s->n_rows[c];
        if ((hr_call_class)c > call->class) continue;
        uint64_t max_calls = s->options.max_calls >> c, max_rows = s->options.max_rows >> c;
        if (max_calls == 0) max_calls = 1;
        if (max_rows < s->options.max_call_rows) max_rows = s->options.max_call_rows;
        if (n_calls >= max_calls)
            return (hr_verdict){HR_RESOURCE_EXHAUSTED, HR_REFUSAL_CALLS, .found = n_calls, .most = max_calls};
        if (n_rows + call->n_rows > max_rows)
            return (hr_verdict){HR_RESOURCE_EXHAUSTED, HR_REFUSAL_ITEMS, .found = n_rows, .most = max_rows};
    }
    return ADMITTED;
}

/* Whether the measurements of the call's model are recent enough to refuse by. */
static bool is_fresh(const hr_scheduler *s, const hr_service_time *time, uint64_t now_ns) {
    uint64_t measured_ns = hr_service_time_measured_ns(time);
    uint64_t batch_ns = hr_service_time_estimate(time, s->options.max_batch_rows);
    return measured_ns != 0 && now_ns < measured_ns + FRESH_NS + FRESH_BATCHES * batch_ns;
}

static hr_verdict check_deadline(const hr_scheduler *s, const hr_scheduled *call, uint64_t wait_ns,
                                 uint64_t now_ns) {
    if (call->deadline_ns == UINT64_MAX) return ADMITTED;
    hr_verdict late = {HR_DEADLINE_EXCEEDED, HR_REFUSAL_DEADLINE, .found = wait_ns};
    if (now_ns >= call->deadline_ns) return late;
    uint32_t part = call->n_rows < s->options.split_rows ? call->n_rows : s->options.split_rows;
    uint64_t shared_ns = call->work_ns / s->options.n_workers;
    late.own_ns = hr_service_time_estimate(call->time, part);
    if (shared_ns > late.own_ns) late.own_ns = shared_ns;
    late.left_ns = call->deadline_ns - now_ns;
    bool makes_it = wait_ns + late.own_ns <= late.left_ns || !is_fresh(s, call->time, now_ns);
    return makes_it ? ADMITTED : late;
}

/* What a normal call may wait; the first of the two is the scale of the waiting times. */
static uint64_t automatic_bound_ns(const hr_scheduler *s) {
    double scale_ns = s->mean_ns > 0 ? s->mean_square / s->mean_ns : 0;
    uint64_t bound_ns = (uint64_t)(WAIT_IN_SERVICES * scale_ns);
    return bound_ns > SHORTEST_WAIT_NS ? bound_ns : SHORTEST_WAIT_NS;
}

static hr_verdict check_wait(hr_scheduler *s, const hr_scheduled *call, uint64_t wait_ns) {
    uint64_t max_ns = s->options.max_wait_ns;
    if (call->patient || call->class == HR_CLASS_BATCH) return ADMITTED;
    if (max_ns == 0) {
        max_ns = automatic_bound_ns(s);
        if (call->class == HR_CLASS_NORMAL && !s->overloaded) max_ns += BURST_NS;
    }
    if (wait_ns <= max_ns) return ADMITTED;
    if (call->class == HR_CLASS_NORMAL) s->overloaded = true;
    return (hr_verdict){HR_RESOURCE_EXHAUSTED, HR_REFUSAL_WAIT, .found = wait_ns, .most = max_ns};
}

/* Moves the means of S and S^2 towards this call's. */
static void learn_size(hr_scheduler *s, const hr_scheduled *call) {
    double service_ns = (double)call->work_ns / s->options.n_workers;
    if (call->class != HR_CLASS_NORMAL || call->work_ns == 0) return;
    if (s->n_means < MEAN_OVER_CALLS) s->n_means++;
    s->mean_ns += (service_ns - s->mean_ns) / s->n_means;
    s->mean_square += (service_ns * service_ns - s->mean_square) / s->n_means;
}

uint64_t hr_scheduler__work_ns(const hr_scheduler *s, const hr_scheduled *call) {
    uint64_t batch_ns = hr_service_time_estimate(call->time, s->options.max_batch_rows);
    return (uint64_t)((double)batch_ns * call->n_rows / s->options.max_batch_rows);
}

hr_verdict hr_scheduler__judge(hr_scheduler *s, hr_scheduled *call) {
    const uint64_t now_ns = hr_clock_ns();
    if (s->draining) return (hr_verdict){.status = HR_UNAVAILABLE, .refusal = HR_REFUSAL_DRAINING};
    if (atomic_load(call->cancelled)) return (hr_verdict){.status = HR_CANCELLED, .refusal = HR_REFUSAL_NONE};
    call->work_ns = hr_scheduler__work_ns(s, call);
    call->node.key_ns =
        call->deadline_ns == UINT64_MAX ? call->received_ns + NO_DEADLINE_NS : call->deadline_ns;
    learn_size(s, call);
    hr_verdict v = check_room(s, call);
    if (v.status != HR_OK) return v;
    uint64_t wait_ns = expected_wait_ns(s, call, now_ns);
    v = check_deadline(s, call, wait_ns, now_ns);
    return v.status == HR_OK ? check_wait(s, call, wait_ns) : v;
}

/* ---- In words ---- */

static void explain_late(const hr_verdict *v, hr_error *err) {
    if (v->left_ns == 0)
        hr_error_set(err, v->status, "the deadline passed before it was accepted");
    else
        hr_error_set(
            err, v->status,
            "the deadline is in %.1f ms, and the answer would take at least %.1f: %.1f ms of waiting "
            "and %.1f of computing",
            ms(v->left_ns), ms(v->found + v->own_ns), ms(v->found), ms(v->own_ns));
}

void hr_scheduler__explain(const hr_verdict *v, hr_error *err) {
    const unsigned long long found = v->found, most = v->most;
    if (v->status == HR_CANCELLED)
        hr_error_set(err, v->status, "cancelled by the caller");
    else if (v->status == HR_OUT_OF_MEMORY)
        hr_error_set(err, v->status, "no memory for one more request");
    else if (v->refusal == HR_REFUSAL_DRAINING)
        hr_error_set(err, v->status, "the server is shutting down");
    else if (v->refusal == HR_REFUSAL_CALLS)
        hr_error_set(err, v->status, "the queue is full: %llu calls are waiting, at most %llu may", found,
                     most);
    else if (v->refusal == HR_REFUSAL_ITEMS)
        hr_error_set(err, v->status, "the queue is full: %llu items are waiting, at most %llu may", found,
                     most);
    else if (v->refusal == HR_REFUSAL_WAIT)
        hr_error_set(err, v->status, "the queue is full: a call would wait %.1f ms, at most %.1f may be",
                     ms(found), ms(most));
    else
        explain_late(v, err);
}
