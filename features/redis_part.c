/* The parts of fetches: routed, sent, answered, asked for again; see redis_reads.h.
 *
 *   route --> a part --> (waits for room) --> sent --> every command answered --> over
 *               ^                              |                                    |
 *               |                              +--> a hedge: a part beside it       |
 *               +------- records to be asked for again, in new parts ---------------+
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "features/redis_reads_internal.h"

enum {
    LATER_MS = 20,          /* to asking again after TRYAGAIN or CLUSTERDOWN, times the try */
    PATIENCE_NS = 10000000, /* a deadline that left a node less than that says nothing about the node */
    MAX_HEDGE_CREDIT = 10
};
static const double hedges_per_part = 0.1;
static const uint32_t command_begins = UINT32_C(1) << 31; /* in part.records */

/* How records are routed. */
typedef struct course {
    hr_redis_node *node; /* all to this one; NULL: each to its own */
    bool asking, is_hedge;
} course;

static uint32_t record_of(const part *p, size_t at) {
    return p->records[at] & ~command_begins;
}

static void part_over(part *p);
static void on_timer(uv_timer_t *timer);

static hr_redis_counts *counts_of(const part *p) {
    return p->op->reads->config.counts;
}

/* --- parts ---------------------------------------------------------------------------------------------- */

/* A part of the op, empty, with room for n records; NULL when out of memory. */
static part *part_take(op *o, hr_redis_node *node, size_t n) {
    hr_redis_reads *reads = o->reads;
    part *p = reads->free_parts;
    if (p == NULL) {
        p = calloc(1, sizeof *p);
        if (p == NULL) return NULL;
        uv_timer_init(reads->config.loop, &p->timer); /* cannot fail */
        p->timer.data = p;
        p->next = reads->parts;
        reads->parts = p;
        reads->free_parts = p;
    }
    if (n > p->capacity) {
        uint32_t *records = realloc(p->records, n * sizeof *records);
        if (records == NULL) return NULL; /* it stays among the free ones */
        p->records = records;
        p->capacity = n;
    }
    reads->free_parts = p->next_free;
    memset(p, 0, offsetof(part, records));
    p->op = o;
    p->node = node;
    p->next_of_op = o->parts;
    o->parts = p;
    o->n_parts++;
    return p;
}

static void part_free(part *p) {
    op *o = p->op;
    part **link = &o->parts;
    while (*link != p) link = &(*link)->next_of_op;
    *link = p->next_of_op;
    p->next_free = o->reads->free_parts;
    o->reads->free_parts = p;
    o->n_parts--;
    hr_redis__op_settle(o);
}

/* --- answers -------------------------------------------------------------------------------------------- */

static bool texts_are_records(const part *p) {
    return p->op->reads->layout->max_records > 1;
}

static void on_text(const hr_redis_command *command, size_t index, const hr_redis_piece *piece) {
    part *p = command->context;
    op *o = p->op;
    p->nbytes += piece->nbytes;
    if (o->fetch == NULL) return;
    const bool each = texts_are_records(p);
    const uint32_t record = p->records[command->first + (each ? index : 0)];
    if (o->states[record] & ANSWERED) return; /* by another part */
    const hr_fetch_slot slot = hr_fetch__slot(o->fetch, record);
    if (o->reads->layout->text(&p->filling, o->fetch->arena, slot.record, each ? 0 : index,
                               (size_t)command->n_elements, piece)) {
        if (piece->offset + piece->nbytes == piece->total) slot.record->cover = p->cover;
        return;
    }
    o->states[record] |= NO_ROOM;
    hr_fetch__fail(o->fetch, HR_RESOURCE_EXHAUSTED, "the call's memory is too small for its records");
}

static void record_answered(part *p, uint32_t record, bool wrong_type) {
    op *o = p->op;
    if (o->states[record] & ANSWERED) return;
    o->states[record] |= ANSWERED;
    o->n_left--;
    p->n_first++;
    if (o->states[record] & NO_ROOM) return;
    const hr_fetch_slot of = hr_fetch__slot(o->fetch, record);
    if (!wrong_type && o->reads->layout->whole != NULL)
        hr_redis_count(&counts_of(p)->expired, o->reads->layout->whole(&p->filling, o->fetch, &of));
    of.record->invalid = wrong_type;
    of.record->answered = true;
    if (of.record->kind != HR_RECORD_PACKED) of.record->cover = p->cover; /* that came with its text */
}

static void ask_again(part *p, size_t first, size_t n, uint8_t how) {
    if (p->is_hedge || p->op->fetch == NULL) return;
    for (size_t i = first; i < first + n; i++) {
        uint8_t *state = &p->op->states[record_of(p, i)];
        *state = (uint8_t)((*state & ~AGAIN) | how);
    }
}

/* Another node is to be asked this once; only one in a part: whoever is sent elsewhere is routed once more.
 */
static void ask_named(part *p, size_t first, size_t n, const hr_address *named) {
    if (!p->has_named) p->named = *named;
    p->has_named = true;
    bool same = p->named.port == named->port && strcmp(p->named.host, named->host) == 0;
    ask_again(p, first, n, same ? NAMED : ROUTED);
}

static void blame_once(part *p, const char *reason) {
    if (p->told) return;
    p->told = true;
    hr_redis_node_failed(p->node, reason);
}

/* An error that is not a cluster's, or of a server that should not be one. */
static void give_reason(part *p, const char *reason) {
    const hr_quoted quoted = hr_quote(reason, strlen(reason));
    p->refused = true;
    hr_redis_node_refused(p->node, quoted.text);
    hr_redis__fail(p->op, HR_UNAVAILABLE, p->node->label, quoted.text);
}

static void take_refusal(part *p, size_t first, size_t n, const char *reason) {
    hr_redis_cluster *cluster = p->op->reads->cluster;
    const hr_redis_refusal refusal = hr_redis_refusal_read(reason, p->node->address.host);
    if (refusal.kind == HR_REDIS_WRONG_TYPE) {
        p->answered = true;
        if (p->op->fetch != NULL) record_answered(p, p->records[first], true); /* n is 1 */
        return;
    }
    if (refusal.kind != HR_REDIS_CANNOT_SERVE &&
        (cluster == NULL || refusal.kind == HR_REDIS_OTHER_REFUSAL)) {
        give_reason(p, reason);
        return;
    }
    p->faulty = true;
    if (refusal.kind == HR_REDIS_CANNOT_SERVE) {
        ask_again(p, first, n, ROUTED);
        hr_redis_connection_give_up(p->lane->connection, hr_quote(reason, strlen(reason)).text);
    } else if (refusal.kind == HR_REDIS_MOVED) {
        hr_redis_count(&counts_of(p)->redirects, n);
        hr_redis_cluster_moved(cluster, refusal.slot, &refusal.address);
        ask_again(p, first, n, ROUTED);
    } else if (refusal.kind == HR_REDIS_ASK) {
        hr_redis_count(&counts_of(p)->redirects, n);
        ask_named(p, first, n, &refusal.address);
    } else {
        if (refusal.kind == HR_REDIS_CLUSTER_DOWN) {
            hr_redis_cluster_doubt(cluster);
            blame_once(p, hr_quote(reason, strlen(reason)).text);
        }
        ask_again(p, first, n, LATER);
    }
}

/* What has come whole has been answered all the same. */
static void take_loss(part *p, size_t first, size_t n) {
    op *o = p->op;
    p->faulty = true;
    for (size_t i = first; i < first + n; i++) {
        const uint32_t record = p->records[i];
        if (o->fetch != NULL && hr_fetch__slot(o->fetch, record).record->kind == HR_RECORD_PACKED)
            record_answered(p, record, false);
        else
            ask_again(p, i, 1, ROUTED);
    }
}

static void on_finish(const hr_redis_command *command, const hr_redis_result *result) {
    part *p = command->context;
    const size_t n = texts_are_records(p) && command->n_elements > 0 ? (size_t)command->n_elements : 1;
    if (result->outcome == HR_REDIS_REFUSED) {
        take_refusal(p, command->first, n, result->reason);
    } else if (result->outcome == HR_REDIS_LOST) {
        take_loss(p, command->first, n);
    } else {
        p->answered = true;
        if (p->op->fetch == NULL) hr_redis_count(&counts_of(p)->late_records, n);
        for (size_t i = 0; p->op->fetch != NULL && i < n; i++)
            record_answered(p, p->records[command->first + i], false);
    }
    p->filling = (hr_redis_filling){.text = NULL};
    hr_redis_lane_give(p->lane, n);
    if (--p->n_commands == 0) part_over(p);
}

/* ASKING's own answer tells nothing that the command behind it does not. */
static void asking_finish(const hr_redis_command *command, const hr_redis_result *result) {
    (void)result;
    part *p = command->context;
    if (--p->n_commands == 0) part_over(p);
}

/* --- sending -------------------------------------------------------------------------------------------- */

static hr_status send_asking(part *p) {
    static const hr_redis_command_i asking_i = {.text = NULL, .finish = asking_finish};
    const hr_redis_command command = {&asking_i, p, 0, HR_REDIS_STATUS_REPLY};
    hr_redis_begin(p->lane->connection, 1);
    hr_redis_text(p->lane->connection, "ASKING", 6, NULL, 0);
    hr_status status = hr_redis_commit(p->lane->connection, &command);
    p->n_commands += status == HR_OK;
    return status;
}

static hr_status send_command(part *p, size_t first, size_t n) {
    static const hr_redis_command_i read_i = {.text = on_text, .finish = on_finish};
    hr_redis_reads *reads = p->op->reads;
    hr_redis_connection *connection = p->lane->connection;
    if (p->asking && send_asking(p) != HR_OK) return HR_OUT_OF_MEMORY;
    hr_redis_command command = {&read_i, p, first, 0};
    command.n_elements = reads->layout->put(connection, &reads->keys, p->op->fetch, p->records + first, n);
    hr_status status = hr_redis_commit(connection, &command);
    if (status != HR_OK) return status;
    p->n_commands++;
    hr_redis_count(&reads->config.counts->commands, 1);
    return HR_OK;
}

/* From records[first] on: as many as go into one command. Takes their mark away. */
static size_t command_length(part *p, size_t first) {
    const size_t most = p->op->reads->layout->max_records;
    size_t n = 1;
    p->records[first] &= ~command_begins;
    while (n < most && first + n < p->n_records && !(p->records[first + n] & command_begins)) n++;
    return n;
}

/* A part slower than most of its node's is asked of another node too. */
static void start_hedge(part *p) {
    hr_redis_node *node = p->node;
    node->hedge_credit += hedges_per_part;
    if (node->hedge_credit > MAX_HEDGE_CREDIT) node->hedge_credit = MAX_HEDGE_CREDIT;
    if (p->op->reads->config.uri->hedge && !p->is_hedge && !p->asking && node->latency.p95_us > 0)
        uv_timer_start(&p->timer, on_timer, node->latency.p95_us / 1000 + 1, 0);
}

static void part_send(part *p, hr_redis_lane *lane) {
    p->lane = lane;
    p->sent_ns = hr_clock_ns();
    p->cover = hr_redis_cover_now(p->node->cover);
    p->n_commands = 1; /* held while commands are sent */
    hr_redis_breaker_take(&p->node->breaker, p->sent_ns);
    hr_redis_lane_take(lane, p->n_records);
    size_t first = 0;
    hr_status status = HR_OK;
    while (first < p->n_records && status == HR_OK) {
        size_t n = command_length(p, first);
        status = send_command(p, first, n);
        if (status == HR_OK) first += n;
    }
    if (status != HR_OK) {
        p->faulty = true;
        hr_redis__fail(p->op, HR_OUT_OF_MEMORY, p->node->label, "out of memory for the request");
        hr_redis_lane_give(lane, p->n_records - first);
    }
    start_hedge(p);
    if (--p->n_commands == 0) part_over(p);
}

/* A part's turn has come, or its node cannot be asked any more. */
static void part_go(hr_redis_waiter *waiter, hr_redis_lane *lane) {
    part *p = (part *)waiter;
    op *o = p->op;
    const uint64_t now_ns = hr_clock_ns();
    if (o->fetch == NULL) {
        part_over(p);
    } else if (lane == NULL) {
        ask_again(p, 0, p->n_records, ROUTED);
        part_over(p);
    } else if (now_ns + p->node->latency.p50_us * UINT64_C(1000) >= o->end_ns) {
        hr_redis_count(&counts_of(p)->overloads, p->n_records);
        hr_redis__fail(o, HR_DEADLINE_EXCEEDED, p->node->label,
                       "too little time was left when its turn came");
        part_over(p);
    } else {
        part_send(p, lane);
    }
}

static void part_submit(part *p) {
    hr_redis_node *node = p->node;
    const uint64_t now_ns = hr_clock_ns();
    const char *refusal = hr_redis_node_refusal(node, now_ns);
    hr_redis_lane *lane = NULL;
    if (refusal == NULL && !hr_redis_node_has_waiters(node)) lane = hr_redis_node_lane(node, p->n_records);
    if (lane != NULL) {
        part_send(p, lane);
        return;
    }
    p->waiter.go = part_go;
    p->waiter.n_records = p->n_records;
    if (refusal == NULL && !p->is_hedge && hr_redis_node_wait(node, &p->waiter)) return;
    if (refusal != NULL) {
        if (!hr_redis_breaker_admits(&node->breaker, now_ns))
            hr_redis_count(&counts_of(p)->breaker_refusals, p->n_records);
        hr_redis__fail(p->op, HR_UNAVAILABLE, node->label, refusal);
    } else if (!p->is_hedge) {
        hr_redis_count(&counts_of(p)->overloads, p->n_records);
        hr_redis__fail(p->op, HR_RESOURCE_EXHAUSTED, node->label, "too many reads wait for it");
    }
    part_over(p);
}

/* --- routing -------------------------------------------------------------------------------------------- */

enum { NO_SLOT = 0xFFFF };

/* Chains the records of each slot (all records, where there is one server), in order: reads->slot_first and
 * slot_next. Records that are answered have NO_SLOT. */
static void chain_slots(op *o, const uint32_t *records, size_t n) {
    hr_redis_reads *reads = o->reads;
    for (size_t k = n; k-- > 0;) {
        const hr_fetch_slot of = hr_fetch__slot(o->fetch, records[k]);
        reads->slots[k] = NO_SLOT;
        if (o->states[records[k]] & ANSWERED) continue;
        uint16_t slot = reads->cluster != NULL ? hr_redis_keys_slot(&reads->keys, &of) : 0;
        reads->slots[k] = slot;
        reads->slot_next[k] = reads->slot_first[slot];
        reads->slot_first[slot] = (uint32_t)k + 1;
    }
}

static hr_redis_node *node_for(op *o, uint16_t slot, const course *by) {
    const char *reason;
    if (by->node != NULL) return by->node;
    if (o->reads->cluster == NULL) return o->reads->node;
    hr_redis_node *node = hr_redis_cluster_route(o->reads->cluster, slot, &reason);
    if (node == NULL && o->fetch->error.code == HR_OK)
        hr_error_set(&o->fetch->error, HR_UNAVAILABLE, "%s", reason);
    return node;
}

/* Adds a slot's records to a part: one command, or one each where a command of several has failed. */
static void add_chain(part *p, const uint32_t *records, size_t head) {
    const hr_redis_reads *reads = p->op->reads;
    bool begins = true;
    for (size_t j = head; j != 0; j = reads->slot_next[j - 1]) {
        const uint32_t record = records[j - 1];
        const bool alone = p->asking || (p->op->states[record] & TRIES) > 0;
        p->records[p->n_records++] = record | (begins || alone ? command_begins : 0);
        begins = alone;
    }
}

/* The course's parts, by next_in_wave; not yet submitted. */
static part *make_parts(op *o, const uint32_t *records, size_t n, const course *by) {
    hr_redis_reads *reads = o->reads;
    part *first = NULL, **last = &first;
    reads->wave++;
    chain_slots(o, records, n);
    for (size_t k = 0; k < n; k++) {
        const uint16_t slot = reads->slots[k];
        const uint32_t head = slot != NO_SLOT ? reads->slot_first[slot] : 0;
        if (head == 0) continue; /* answered, or of a slot that was seen to */
        reads->slot_first[slot] = 0;
        hr_redis_node *node = node_for(o, slot, by);
        if (node == NULL) continue;
        if (node->wave != reads->wave) {
            part *p = part_take(o, node, n);
            node->wave = reads->wave;
            node->wave_part = p;
            if (p == NULL) {
                hr_redis__fail(o, HR_OUT_OF_MEMORY, node->label, "out of memory for the request");
                continue;
            }
            p->asking = by->asking;
            p->is_hedge = by->is_hedge;
            *last = p;
            last = &p->next_in_wave;
        }
        if (node->wave_part != NULL) add_chain(node->wave_part, records, head);
    }
    return first;
}

static void route_by(op *o, const uint32_t *records, size_t n, const course *by) {
    part *p = make_parts(o, records, n, by);
    while (p != NULL) {
        part *next = p->next_in_wave; /* a part that is over is no longer ours */
        part_submit(p);
        p = next;
    }
}

void hr_redis__route(op *o, const uint32_t *records, size_t n) {
    const course by = {.node = NULL};
    route_by(o, records, n, &by);
}

/* --- asking again --------------------------------------------------------------------------------------- */

/* The part's records that are to be asked for again in this way, into reads->again; those that were asked for
 * too often stay unanswered. */
static size_t collect_again(part *p, uint8_t how) {
    op *o = p->op;
    size_t n = 0;
    for (size_t i = 0; i < p->n_records; i++) {
        uint8_t *state = &o->states[record_of(p, i)];
        if ((*state & AGAIN) != how || (*state & ANSWERED)) continue;
        *state &= (uint8_t)~AGAIN;
        if ((*state & TRIES) >= MAX_TRIES) {
            hr_redis__fail(o, HR_UNAVAILABLE, p->node->label, "a record was asked for again too often");
            continue;
        }
        ++*state;
        o->reads->again[n++] = record_of(p, i);
    }
    hr_redis_count(&counts_of(p)->retries, n);
    return n;
}

static void route_named(part *p, size_t n) {
    hr_redis_node *node = hr_redis_cluster_node(p->op->reads->cluster, &p->named);
    const course by = {.node = node, .asking = true};
    if (node != NULL)
        route_by(p->op, p->op->reads->again, n, &by);
    else
        hr_redis__fail(p->op, HR_OUT_OF_MEMORY, p->node->label, "no room for the node that it names");
}

/* A part of no node yet: its timer routes it. */
static void route_later(part *p, size_t n) {
    op *o = p->op;
    part *later = part_take(o, NULL, n);
    if (later == NULL) {
        hr_redis__fail(o, HR_OUT_OF_MEMORY, p->node->label, "out of memory for the request");
        return;
    }
    memcpy(later->records, o->reads->again, n * sizeof *later->records);
    later->n_records = n;
    uv_timer_start(&later->timer, on_timer, LATER_MS * (o->states[later->records[0]] & TRIES), 0);
}

static void part_over(part *p) {
    op *o = p->op;
    uv_timer_stop(&p->timer);
    if (p->refused && !p->answered) {
        p->faulty = true;
        blame_once(p, p->node->refusal);
    }
    if (p->lane != NULL && !p->faulty)
        hr_redis_node_answered(p->node, hr_clock_ns() - p->sent_ns, p->n_records, p->nbytes, p->told);
    hr_redis_count(&counts_of(p)->bytes, p->nbytes);
    if (p->is_hedge && p->n_first > 0) hr_redis_count(&counts_of(p)->hedges_won, 1);
    if (o->fetch != NULL && p->node != NULL && !p->is_hedge) {
        size_t n = collect_again(p, ROUTED);
        if (n > 0) hr_redis__route(o, o->reads->again, n);
        n = collect_again(p, NAMED);
        if (n > 0) route_named(p, n);
        n = collect_again(p, LATER);
        if (n > 0) route_later(p, n);
    }
    part_free(p);
}

/* --- time ----------------------------------------------------------------------------------------------- */

static void hedge(part *p) {
    op *o = p->op;
    hr_redis_node *second = hr_redis_cluster_second(o->reads->cluster, p->node);
    if (second == NULL || p->node->hedge_credit < 1) return;
    p->node->hedge_credit -= 1;
    hr_redis_count(&counts_of(p)->hedges, 1);
    const course by = {.node = second, .is_hedge = true};
    for (size_t i = 0; i < p->n_records; i++) o->reads->again[i] = record_of(p, i);
    route_by(o, o->reads->again, p->n_records, &by);
}

static void on_timer(uv_timer_t *timer) {
    part *p = timer->data;
    if (p->node == NULL) {
        if (p->op->fetch != NULL) hr_redis__route(p->op, p->records, p->n_records);
        part_over(p);
    } else if (p->op->fetch != NULL) {
        hedge(p);
    }
}

/* Blaming a node lets go of parts, also of this op: after each the search begins anew. */
const char *hr_redis__blame(op *o, const char *reason) {
    const uint64_t now_ns = hr_clock_ns();
    const char *label = NULL;
    for (part *p = o->parts; p != NULL;) {
        const hr_redis_node *node = p->node;
        if (node != NULL && (label == NULL || p->lane != NULL)) label = node->label;
        const bool waited = p->lane != NULL && p->n_commands > 0 && !p->told;
        const uint64_t usual_ns = node != NULL ? node->latency.p95_us * UINT64_C(2000) : 0;
        const uint64_t patience_ns = usual_ns > PATIENCE_NS ? usual_ns : PATIENCE_NS;
        if (!waited || (o->by_deadline && now_ns - p->sent_ns < patience_ns)) {
            p = p->next_of_op;
            continue;
        }
        blame_once(p, reason);
        p = o->parts;
    }
    return label;
}
