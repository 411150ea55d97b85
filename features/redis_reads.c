/* Fetches as reads of Redis, from their start to their end: see redis_reads.h. Their parts are
 * redis_part.c's.
 */
#include "features/redis_reads.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "features/redis_reads_internal.h"

/* --- the end of a fetch --------------------------------------------------------------------------------- */

static void fetch_fail(hr_fetch *fetch, hr_status code, const char *label, const char *reason) {
    if (fetch->error.code == HR_OK) hr_error_set(&fetch->error, code, "%s: %s", label, reason);
}

void hr_redis__fail(op *o, hr_status code, const char *label, const char *reason) {
    if (o->fetch != NULL) fetch_fail(o->fetch, code, label, reason);
}

static void fetch_done(hr_redis_reads *reads, hr_fetch *fetch) {
    if (fetch->error.code != HR_OK) hr_redis_count(&reads->config.counts->degraded, 1);
    fetch->done(fetch);
}

/* The one place where a fetch that became an op is done. Without an error all its records are answered. */
static void op_done(op *o) {
    hr_fetch *fetch = o->fetch;
    if (o->n_left > 0)
        hr_redis__fail(o, HR_INTERNAL, o->reads->config.name, "some records were not answered");
    o->fetch = NULL;
    for (part *p = o->parts; p != NULL; p = p->next_of_op) p->filling = (hr_redis_filling){.text = NULL};
    uv_timer_stop(&o->timer);
    fetch_done(o->reads, fetch);
}

void hr_redis__op_settle(op *o) {
    if (o->fetch != NULL && (o->n_left == 0 || o->n_parts == 0)) op_done(o);
    if (o->fetch != NULL || o->n_parts > 0) return;
    o->next_free = o->reads->free_ops;
    o->reads->free_ops = o;
}

static void on_timeout(uv_timer_t *timer) {
    op *o = timer->data;
    const hr_redis_reads *reads = o->reads;
    char reason[64] = "the call's deadline came before the answer";
    if (!o->by_deadline)
        snprintf(reason, sizeof reason, "no answer within %" PRIu32 " ms",
                 reads->config.options->command_timeout_ms);
    o->n_parts++; /* held: a node that is blamed lets go of parts, which may be this op's */
    const char *label = hr_redis__blame(o, reason);
    hr_redis_count(&reads->config.counts->timeouts, 1);
    hr_redis__fail(o, HR_DEADLINE_EXCEEDED, label != NULL ? label : reads->config.name, reason);
    op_done(o);
    o->n_parts--;
    hr_redis__op_settle(o);
}

/* --- its start ------------------------------------------------------------------------------------------ */

static bool reserve_states(op *o, size_t n) {
    if (n > o->states_capacity) {
        free(o->states);
        o->states = malloc(n);
        o->states_capacity = o->states != NULL ? n : 0;
        if (o->states == NULL) return false;
    }
    if (n > 0) memset(o->states, 0, n);
    return true;
}

static op *op_take(hr_redis_reads *reads, size_t n_records) {
    op *o = reads->free_ops;
    if (o == NULL) {
        o = calloc(1, sizeof *o);
        if (o == NULL) return NULL;
        uv_timer_init(reads->config.loop, &o->timer); /* cannot fail */
        o->timer.data = o;
        o->reads = reads;
        o->next = reads->ops;
        reads->ops = o;
        o->next_free = NULL;
        reads->free_ops = o;
    }
    if (!reserve_states(o, n_records)) return NULL; /* it stays among the free ones */
    reads->free_ops = o->next_free;
    o->n_records = o->n_left = n_records;
    return o;
}

/* Grows all or nothing. */
static bool reserve_scratch(hr_redis_reads *reads, size_t n) {
    if (n <= reads->scratch_capacity) return true;
    uint32_t *slot_next = malloc(n * sizeof *slot_next), *again = malloc(n * sizeof *again);
    uint16_t *slots = malloc(n * sizeof *slots);
    bool whole = slot_next != NULL && again != NULL && slots != NULL;
    if (whole) {
        free(reads->slot_next);
        free(reads->again);
        free(reads->slots);
        reads->slot_next = slot_next;
        reads->again = again;
        reads->slots = slots;
        reads->scratch_capacity = n;
    } else {
        free(slot_next);
        free(again);
        free(slots);
    }
    return whole;
}

/* The fetch's end at the latest, and a timer for it. The loop's time is hr_clock_ns in whole milliseconds:
 * rounded up, a timeout is never early. */
static void start_timer(op *o, uint64_t now_ns) {
    const uint64_t left_ns = o->fetch->deadline_ns - now_ns;
    const uint64_t most_ns = o->reads->config.options->command_timeout_ms * UINT64_C(1000000);
    o->by_deadline = left_ns < most_ns;
    const uint64_t wait_ns = o->by_deadline ? left_ns : most_ns;
    o->end_ns = now_ns + wait_ns;
    const uint64_t end_ms = (o->end_ns + 999999) / 1000000, now_ms = uv_now(o->reads->config.loop);
    uv_timer_start(&o->timer, on_timeout, end_ms > now_ms ? end_ms - now_ms : 0, 0);
}

/* All records but those that are known without being asked for. */
static void route_all(op *o) {
    hr_redis_reads *reads = o->reads;
    size_t n = 0;
    for (size_t i = 0; i < o->n_records; i++) {
        const hr_fetch_slot slot = hr_fetch__slot(o->fetch, i);
        hr_record_kind known;
        if (reads->layout->asks == NULL || reads->layout->asks(&reads->keys, o->fetch, &slot, &known)) {
            reads->again[n++] = (uint32_t)i;
            continue;
        }
        slot.record->kind = known;
        slot.record->answered = true;
        o->states[i] |= ANSWERED;
        o->n_left--;
    }
    hr_redis_count(&reads->config.counts->records, n);
    hr_redis__route(o, reads->again, n);
}

static void op_start(op *o, hr_fetch *fetch, uint64_t now_ns) {
    hr_redis_reads *reads = o->reads;
    o->fetch = fetch;
    start_timer(o, now_ns);
    o->n_parts = 1; /* held until it is routed */
    if (reads->cluster != NULL && hr_redis_cluster_is_unknown(reads->cluster)) {
        o->next_waiting = NULL;
        *reads->last_waiting = o;
        reads->last_waiting = &o->next_waiting;
        return;
    }
    route_all(o);
    o->n_parts--;
    hr_redis__op_settle(o);
}

void hr_redis_reads_resume(hr_redis_reads *reads) {
    op *o = reads->first_waiting;
    reads->first_waiting = NULL;
    reads->last_waiting = &reads->first_waiting;
    while (o != NULL) {
        op *next = o->next_waiting;
        if (o->fetch != NULL) route_all(o);
        o->n_parts--;
        hr_redis__op_settle(o);
        o = next;
    }
}

void hr_redis_reads_start(hr_redis_reads *reads, hr_fetch *fetch) {
    const uint64_t now_ns = hr_clock_ns();
    const char *label = reads->config.name;
    op *o = NULL;
    hr_redis_count(&reads->config.counts->fetches, 1);
    if (!hr_fetch__begin(fetch)) {
        /* it has its error */
    } else if (reads->closing) {
        fetch_fail(fetch, HR_UNAVAILABLE, label, "the store is being closed");
    } else if (now_ns >= fetch->deadline_ns) {
        fetch_fail(fetch, HR_DEADLINE_EXCEEDED, label,
                   "the call's deadline came before its records were asked for");
    } else if (reads->layout->begin != NULL && !reads->layout->begin(&reads->keys, fetch)) {
        fetch_fail(fetch, HR_RESOURCE_EXHAUSTED, label, "the call's memory is too small for its records");
    } else {
        size_t n = hr_fetch__count(fetch);
        if (reserve_scratch(reads, n)) o = op_take(reads, n);
        if (o == NULL) fetch_fail(fetch, HR_OUT_OF_MEMORY, label, "out of memory");
    }
    if (o != NULL)
        op_start(o, fetch, now_ns);
    else
        fetch_done(reads, fetch);
}

/* --- opening and closing -------------------------------------------------------------------------------- */

hr_redis_reads *hr_redis_reads_create(const hr_redis_reads_config *config) {
    hr_redis_reads *reads = calloc(1, sizeof *reads);
    uint32_t *slot_first = calloc(HR_REDIS_N_SLOTS, sizeof *slot_first);
    if (reads == NULL || slot_first == NULL) {
        free(slot_first);
        free(reads);
        return NULL;
    }
    reads->config = *config;
    static const hr_redis_layout *const layouts[] = {[HR_LAYOUT_PACKED] = &hr_redis_layout_packed,
                                                     [HR_LAYOUT_HASH] = &hr_redis_layout_hash,
                                                     [HR_LAYOUT_FEAST] = &hr_redis_layout_feast};
    reads->layout = layouts[config->uri->layout];
    hr_redis_keys_init(&reads->keys, config->uri);
    reads->slot_first = slot_first;
    reads->last_waiting = &reads->first_waiting;
    return reads;
}

void hr_redis_reads_of_node(hr_redis_reads *reads, hr_redis_node *node) {
    reads->node = node;
}

void hr_redis_reads_of_cluster(hr_redis_reads *reads, hr_redis_cluster *cluster) {
    reads->cluster = cluster;
}

void hr_redis_reads_close(hr_redis_reads *reads) {
    reads->closing = true;
    for (op *o = reads->ops; o != NULL; o = o->next)
        if (o->fetch != NULL) {
            hr_redis__fail(o, HR_UNAVAILABLE, reads->config.name, "the store is being closed");
            op_done(o);
        }
    for (op *o = reads->ops; o != NULL; o = o->next) uv_close((uv_handle_t *)&o->timer, NULL);
    for (part *p = reads->parts; p != NULL; p = p->next) uv_close((uv_handle_t *)&p->timer, NULL);
}

void hr_redis_reads_destroy(hr_redis_reads *reads) {
    if (reads == NULL) return;
    while (reads->ops != NULL) {
        op *next = reads->ops->next;
        free(reads->ops->states);
        free(reads->ops);
        reads->ops = next;
    }
    while (reads->parts != NULL) {
        part *next = reads->parts->next;
        free(reads->parts->records);
        free(reads->parts);
        reads->parts = next;
    }
    hr_redis_keys_clear(&reads->keys);
    free(reads->slot_first);
    free(reads->slot_next);
    free(reads->slots);
    free(reads->again);
    free(reads);
}
