/* Which rows run next: see scheduler.h.
 *
 * Calls of one model share a lane, which has a tree of calls per class. A call is in its tree while rows of
 * it may be taken; while it is fetched, or opened by the worker that took its first rows, it is `pending`:
 * its work counts as ahead of others, but nobody can take it. It ends when it is not fetching, has no rows
 * left and no part under way, in whatever order these come about.
 */
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "service/scheduler_internal.h"

enum { BATCH_SHARE = 10 }; /* of the time, to the batch class while it waits: one part in as many */

/* ---- Life ---- */

hr_status hr_scheduler_create(const hr_scheduler_options *options, hr_scheduler **out, hr_error *err) {
    hr_scheduler *s = calloc(1, sizeof *s);
    if (s == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "scheduler");
    s->options = *options;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, &monotonic);
    pthread_cond_init(&s->idle, NULL);
    pthread_condattr_destroy(&monotonic);
    *out = s;
    return HR_OK;
}

void hr_scheduler_destroy(hr_scheduler *s) {
    if (s == NULL) return;
    while (s->free_lanes != NULL) {
        hr_lane *lane = s->free_lanes;
        s->free_lanes = lane->next;
        free(lane);
    }
    pthread_cond_destroy(&s->idle);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void hr_scheduler_drain(hr_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    s->draining = true;
    pthread_cond_broadcast(&s->work); /* what waits for a batch to fill waits no longer */
    pthread_mutex_unlock(&s->lock);
}

void hr_scheduler_close(hr_scheduler *s) {
    hr_scheduler_drain(s);
    pthread_mutex_lock(&s->lock);
    while (s->n_live > 0) pthread_cond_wait(&s->idle, &s->lock);
    s->closed = true;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

void hr_scheduler_count(hr_scheduler *s, hr_scheduler_counts *counts) {
    pthread_mutex_lock(&s->lock);
    *counts = (hr_scheduler_counts){s->n_untouched, s->n_untaken, s->n_waiting};
    pthread_mutex_unlock(&s->lock);
}

/* ---- A call's place; under the lock ---- */

/* In the lock: without it, the store's thread might find the scheduler gone. */
static void wake_one(hr_scheduler *s) {
    if (s->n_waiting > 0) pthread_cond_signal(&s->work);
}

/* The lane of the model, made where there is none; NULL when out of memory. */
static hr_lane *lane_take(hr_scheduler *s, const void *model) {
    for (hr_lane *lane = s->lanes; lane != NULL; lane = lane->next) {
        if (lane->model != model) continue;
        lane->n_calls++;
        return lane;
    }
    hr_lane *lane = s->free_lanes;
    if (lane != NULL)
        s->free_lanes = lane->next;
    else if ((lane = calloc(1, sizeof *lane)) == NULL)
        return NULL;
    for (int c = 0; c < HR_CLASS_COUNT; c++) lane->trees[c].seed = hr_clock_ns();
    lane->model = model;
    lane->n_calls = 1;
    lane->next = s->lanes;
    s->lanes = lane;
    return lane;
}

static void lane_drop(hr_scheduler *s, hr_lane *lane) {
    if (--lane->n_calls > 0) return;
    hr_lane **link = &s->lanes;
    while (*link != lane) link = &(*link)->next;
    *link = lane->next;
    lane->next = s->free_lanes;
    s->free_lanes = lane;
}

static uint64_t work_left_ns(const hr_scheduled *call) {
    return (uint64_t)((double)call->work_ns * call->n_left / call->n_rows);
}

static void set_pending(hr_scheduler *s, hr_scheduled *call, bool pending) {
    if (call->pending == pending) return;
    call->pending = pending;
    uint64_t work_ns = work_left_ns(call);
    s->pending_ns[call->class] += pending ? work_ns : -work_ns;
}

static void enqueue(hr_scheduler *s, hr_scheduled *call) {
    hr_lane *lane = call->lane;
    call->in_tree = true;
    if (call->work_ns == 0) call->work_ns = hr_scheduler__work_ns(s, call);
    call->node.work_ns = work_left_ns(call);
    hr_deadline_tree_insert(&lane->trees[call->class], &call->node);
    if (lane->n_rows[call->class] == 0) lane->since_ns[call->class] = hr_clock_ns();
    lane->n_rows[call->class] += call->n_left;
    s->ready_rows[call->class] += call->n_left;
}

static void dequeue(hr_scheduler *s, hr_scheduled *call) {
    if (!call->in_tree) return;
    call->in_tree = false;
    hr_deadline_tree_remove(&call->lane->trees[call->class], &call->node);
    call->lane->n_rows[call->class] -= call->n_left;
    s->ready_rows[call->class] -= call->n_left;
}

static void give_place_back(hr_scheduler *s, hr_scheduled *call) {
    if (!call->counted) return;
    call->counted = false;
    s->n_calls[call->class]--;
    s->n_rows[call->class] -= call->n_rows;
}

/* Hands the call back where nothing is left to do for it. */
static void end_if_through(hr_scheduler *s, hr_scheduled *call, hr_scheduled **ended) {
    if (call->fetching || call->n_parts > 0 || call->n_left > 0) return;
    give_place_back(s, call);
    lane_drop(s, call->lane);
    *call->slot = NULL;
    call->next = *ended;
    *ended = call;
    if (--s->n_live == 0) pthread_cond_broadcast(&s->idle);
}

/* Nobody takes any more of the call's rows. */
static void drop_rest(hr_scheduler *s, hr_scheduled *call) {
    dequeue(s, call);
    set_pending(s, call, false);
    if (call->n_left == call->n_rows) s->n_untouched--;
    s->n_untaken -= call->n_left;
    call->n_left = 0;
    give_place_back(s, call);
}

static void expire(hr_scheduler *s, hr_scheduled *call, const char *stage) {
    if (call->error.code == HR_OK)
        hr_error_set(&call->error, HR_DEADLINE_EXCEEDED, "the deadline passed before %s", stage);
    drop_rest(s, call);
}

/* ---- What happens to a call that waits ---- */

static hr_verdict admit(hr_scheduler *s, hr_scheduled *call, bool fetching) {
    hr_verdict v = hr_scheduler__judge(s, call);
    if (v.status != HR_OK) return v;
    call->lane = lane_take(s, call->model);
    if (call->lane == NULL) return (hr_verdict){.status = HR_OUT_OF_MEMORY, .refusal = HR_REFUSAL_CALLS};
    call->error.code = HR_OK;
    call->n_left = call->n_rows;
    call->fetching = fetching;
    call->counted = true;
    call->node.sequence = s->sequence++;
    *call->slot = call;
    s->n_calls[call->class]++;
    s->n_rows[call->class] += call->n_rows;
    s->n_live++;
    s->n_untouched++;
    s->n_untaken += call->n_rows;
    if (fetching)
        set_pending(s, call, true);
    else
        enqueue(s, call);
    return v;
}

hr_status hr_scheduler_admit(hr_scheduler *s, hr_scheduled *call, bool fetching, hr_refusal *refusal,
                             hr_error *err) {
    pthread_mutex_lock(&s->lock);
    hr_verdict v = admit(s, call, fetching);
    bool wake = v.status == HR_OK && !fetching && s->n_waiting > 0;
    pthread_mutex_unlock(&s->lock);          /* an admitted call may be gone now */
    if (wake) pthread_cond_signal(&s->work); /* who wakes finds the lock free */
    *refusal = v.refusal;
    if (v.status != HR_OK) hr_scheduler__explain(&v, err);
    return v.status;
}

void hr_scheduler_ready(hr_scheduler *s, hr_scheduled *call) {
    pthread_mutex_lock(&s->lock);
    call->fetching = false;
    if (call->n_left > 0) {
        set_pending(s, call, false);
        enqueue(s, call);
    } else { /* it was given up meanwhile */
        end_if_through(s, call, &s->ended);
    }
    wake_one(s);
    pthread_mutex_unlock(&s->lock);
}

void hr_scheduler_opened(hr_scheduler *s, hr_scheduled *call) {
    pthread_mutex_lock(&s->lock);
    call->opened = true;
    if (call->n_left > 0) {
        set_pending(s, call, false);
        enqueue(s, call);
        wake_one(s);
    }
    pthread_mutex_unlock(&s->lock);
}

void hr_scheduler_cancel(hr_scheduler *s, hr_scheduled *const *slot) {
    pthread_mutex_lock(&s->lock);
    hr_scheduled *call = *slot;
    if (call != NULL && call->error.code == HR_OK) {
        hr_error_set(&call->error, HR_CANCELLED, "cancelled by the caller");
        drop_rest(s, call);
        end_if_through(s, call, &s->ended);
        wake_one(s);
    }
    pthread_mutex_unlock(&s->lock);
}

void hr_scheduler_fail(hr_scheduler *s, hr_scheduled *call, uint32_t first_row, const hr_error *error) {
    pthread_mutex_lock(&s->lock);
    if (call->error.code == HR_OK || first_row < call->error_row) {
        call->error = *error;
        call->error_row = first_row;
    }
    drop_rest(s, call);
    pthread_mutex_unlock(&s->lock);
}

/* ---- Taking ---- */

static hr_scheduled *call_of(const hr_deadline_node *node) {
    return node == NULL ? NULL : (hr_scheduled *)((const char *)node - offsetof(hr_scheduled, node));
}

static hr_scheduled *first_call(const hr_lane *lane, hr_call_class class) {
    return call_of(hr_deadline_tree_first(&lane->trees[class]));
}

/* Whether the lane need not wait for a batch to fill; if it need, *wake_ns becomes no later than its time. */
static bool is_due(const hr_scheduler *s, const hr_lane *lane, hr_call_class class, uint64_t now_ns,
                   uint64_t *wake_ns) {
    uint64_t due_ns = lane->since_ns[class] + s->options.max_delay_ns;
    if (s->draining || now_ns >= due_ns || lane->n_rows[class] >= s->options.max_batch_rows) return true;
    if (due_ns < *wake_ns) *wake_ns = due_ns;
    return false;
}

/* The lane whose first call of the class goes first; NULL: none is due. */
static hr_lane *first_lane(const hr_scheduler *s, hr_call_class class, uint64_t now_ns, uint64_t *wake_ns) {
    hr_lane *best = NULL;
    uint64_t best_key_ns = UINT64_MAX;
    for (hr_lane *lane = s->lanes; lane != NULL; lane = lane->next) {
        if (lane->n_rows[class] == 0 || !is_due(s, lane, class, now_ns, wake_ns)) continue;
        uint64_t key_ns = first_call(lane, class)->node.key_ns;
        if (best != NULL && key_ns >= best_key_ns) continue;
        best = lane;
        best_key_ns = key_ns;
    }
    return best;
}

/* How many rows one worker takes: its share where others are idle, in whole multiples of split_rows. Of
 * shadow calls no more than that, for a call that comes meanwhile waits for all of it. */
static uint32_t batch_limit(const hr_scheduler *s, hr_call_class class, uint64_t n_ready) {
    const uint32_t split = s->options.split_rows;
    const uint32_t most = class == HR_CLASS_SHADOW ? split : s->options.max_batch_rows;
    uint64_t sharers = (uint64_t)s->n_waiting + 1;
    uint64_t share = ((n_ready + sharers - 1) / sharers + split - 1) / split * split;
    return share < most ? (uint32_t)share : most;
}

/* Before a part of the call is taken, launched or done. */
static void pass_time(hr_scheduled *call, uint64_t now_ns) {
    if (now_ns <= call->since_ns) return; /* another worker looked at the clock later, but came first */
    uint64_t passed_ns = now_ns - call->since_ns;
    if (call->n_computing > 0)
        call->computing_ns += passed_ns;
    else if (call->n_parts > 0)
        call->preparing_ns += passed_ns;
    call->since_ns = now_ns;
}

static void take_rows(hr_scheduler *s, hr_batch *batch, hr_scheduled *call, uint32_t n_rows,
                      uint64_t now_ns) {
    hr_lane *lane = call->lane;
    hr_part *part = &batch->parts[batch->n_parts++];
    *part = (hr_part){.call = call,
                      .first = call->n_rows - call->n_left,
                      .n_rows = n_rows,
                      .whole = n_rows == call->n_rows};
    batch->n_rows += n_rows;
    pass_time(call, now_ns);
    call->n_parts++;
    if (call->n_left == call->n_rows) s->n_untouched--;
    s->n_untaken -= n_rows;
    bool stays = call->opened && n_rows < call->n_left;
    if (!stays) dequeue(s, call);
    call->n_left -= n_rows;
    if (stays) {
        hr_deadline_tree_set_work(&call->node, work_left_ns(call));
        lane->n_rows[call->class] -= n_rows;
        s->ready_rows[call->class] -= n_rows;
    } else if (call->n_left > 0) {
        set_pending(s, call, true); /* until it is opened */
    }
}

static void fill(hr_scheduler *s, hr_batch *batch, hr_lane *lane, hr_call_class class, uint64_t now_ns) {
    const uint32_t limit = batch_limit(s, class, lane->n_rows[class]);
    hr_scheduled *call;
    lane->n_calls++; /* expired calls may be its last */
    while (batch->n_rows < limit && (call = first_call(lane, class)) != NULL) {
        if (now_ns >= call->deadline_ns) {
            expire(s, call, "a worker took it");
            end_if_through(s, call, &batch->ended);
            continue;
        }
        uint32_t room = limit - batch->n_rows;
        take_rows(s, batch, call, call->n_left < room ? call->n_left : room, now_ns);
    }
    lane_drop(s, lane);
}

static uint64_t expected_batch_ns(const hr_scheduler *s, const hr_lane *lane, hr_call_class class) {
    uint64_t n = lane->n_rows[class], most = s->options.max_batch_rows;
    return hr_service_time_estimate(first_call(lane, class)->time, (uint32_t)(n < most ? n : most));
}

/* Keeps the batch class's account: normal batches that go first while it waits owe it a share of their time.
 */
static void settle(hr_scheduler *s, hr_call_class class, uint64_t expected_ns) {
    if (class == HR_CLASS_BATCH)
        s->owed_ns -= expected_ns < s->owed_ns ? expected_ns : s->owed_ns;
    else if (s->ready_rows[HR_CLASS_BATCH] == 0)
        s->owed_ns = 0;
    else
        s->owed_ns += expected_ns / (BATCH_SHARE - 1);
}

/* Takes rows of the class, if any are due. */
static bool take_class(hr_scheduler *s, hr_batch *batch, hr_call_class class, bool only_owed, uint64_t now_ns,
                       uint64_t *wake_ns) {
    hr_lane *lane;
    while (batch->n_parts == 0 && (lane = first_lane(s, class, now_ns, wake_ns)) != NULL) {
        if (only_owed && s->owed_ns < expected_batch_ns(s, lane, class)) return false;
        fill(s, batch, lane, class, now_ns);
    }
    if (batch->n_parts == 0) return false;
    batch->taken_ns = now_ns;
    batch->expected_ns = hr_service_time_estimate(batch->parts[0].call->time, batch->n_rows);
    s->n_busy++;
    s->busy_until_ns += now_ns + batch->expected_ns;
    settle(s, class, batch->expected_ns);
    return true;
}

static void take_any(hr_scheduler *s, hr_batch *batch, uint64_t *wake_ns) {
    const uint64_t now_ns = hr_clock_ns();
    bool owed = s->owed_ns > 0 && s->ready_rows[HR_CLASS_NORMAL] > 0;
    if (owed && take_class(s, batch, HR_CLASS_BATCH, true, now_ns, wake_ns)) return;
    for (hr_call_class c = 0; c < HR_CLASS_COUNT; c++)
        if (take_class(s, batch, c, false, now_ns, wake_ns)) return;
}

static void wait_for_work(hr_scheduler *s, uint64_t wake_ns) {
    s->n_waiting++;
    s->overloaded = false;
    if (wake_ns == UINT64_MAX) {
        pthread_cond_wait(&s->work, &s->lock);
    } else {
        const struct timespec until = {.tv_sec = (time_t)(wake_ns / 1000000000u),
                                       .tv_nsec = (long)(wake_ns % 1000000000u)};
        pthread_cond_timedwait(&s->work, &s->lock, &until);
    }
    s->n_waiting--;
}

bool hr_scheduler_take(hr_scheduler *s, hr_batch *batch) {
    batch->n_parts = batch->n_rows = 0;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        uint64_t wake_ns = UINT64_MAX;
        batch->ended = s->ended;
        s->ended = NULL;
        take_any(s, batch, &wake_ns);
        if (batch->n_parts > 0 || batch->ended != NULL || s->closed) break;
        wait_for_work(s, wake_ns);
    }
    bool open = batch->n_parts > 0 || batch->ended != NULL;
    for (int c = 0; c < HR_CLASS_COUNT; c++) {
        if (s->ready_rows[c] == 0) continue;
        wake_one(s); /* who wakes the next, if there is still more */
        break;
    }
    pthread_mutex_unlock(&s->lock);
    return open;
}

/* ---- Computing ---- */

/* A model's first batch, after a swap say, is known: those that came while it was not are work too. */
static void weigh_lane(const hr_scheduler *s, const hr_lane *lane) {
    for (int c = 0; c < HR_CLASS_COUNT; c++) {
        hr_deadline_node *node = hr_deadline_tree_first(&lane->trees[c]);
        for (; node != NULL; node = hr_deadline_tree_next(node)) {
            hr_scheduled *call = call_of(node);
            if (call->work_ns == 0) call->work_ns = hr_scheduler__work_ns(s, call);
            hr_deadline_tree_set_work(node, work_left_ns(call));
        }
    }
}

static void measure(const hr_scheduler *s, const hr_batch *batch, uint64_t now_ns) {
    const hr_scheduled *call = batch->parts[0].call;
    bool is_first = hr_service_time_measured_ns(call->time) == 0;
    hr_service_time_add(call->time, batch->n_rows, now_ns - batch->taken_ns, now_ns);
    if (is_first) weigh_lane(s, call->lane);
}

uint32_t hr_scheduler_launch(hr_scheduler *s, hr_batch *batch) {
    const uint64_t now_ns = hr_clock_ns();
    batch->n_rows = 0;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < batch->n_parts; i++) {
        hr_part *part = &batch->parts[i];
        hr_scheduled *call = part->call;
        if (call->error.code == HR_OK && now_ns >= call->deadline_ns) expire(s, call, "it was scored");
        part->launched = call->error.code == HR_OK;
        if (!part->launched) continue;
        batch->n_rows += part->n_rows;
        pass_time(call, now_ns);
        call->n_computing++;
    }
    pthread_mutex_unlock(&s->lock);
    return batch->n_rows;
}

void hr_scheduler_done(hr_scheduler *s, hr_batch *batch) {
    const uint64_t now_ns = hr_clock_ns();
    pthread_mutex_lock(&s->lock);
    if (batch->n_rows > 0) measure(s, batch, now_ns);
    s->n_busy--;
    s->busy_until_ns -= batch->taken_ns + batch->expected_ns;
    for (uint32_t i = 0; i < batch->n_parts; i++) {
        hr_scheduled *call = batch->parts[i].call;
        pass_time(call, now_ns);
        call->n_computing -= batch->parts[i].launched;
        call->n_parts--;
        end_if_through(s, call, &batch->ended);
    }
    pthread_mutex_unlock(&s->lock);
}
