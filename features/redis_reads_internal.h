/* What redis_reads.c (fetches) and redis_part.c (their parts) share. */
#ifndef HOMERANK_FEATURES_REDIS_READS_INTERNAL_H
#define HOMERANK_FEATURES_REDIS_READS_INTERNAL_H

#include "features/redis_reads.h"

typedef struct op op;
typedef struct part part;

/* A record's state (op.states): how often it was asked for again, and what is known. */
enum {
    TRIES = 0x0F,   /* a count in the low bits */
    NO_ROOM = 0x10, /* its answer did not fit the fetch's arena: it stays MISSING */
    ANSWERED = 0x20,
    AGAIN = 0xC0,  /* to be asked for again when its part is over: */
    ROUTED = 0x40, /* of the node that it is on */
    NAMED = 0x80,  /* of part.named, after ASKING */
    LATER = 0xC0,  /* after a while */
    MAX_TRIES = 6
};

/* A fetch under way. Kept for reuse until the store is closed: its timer may not just be freed. */
struct op {
    hr_redis_reads *reads;
    hr_fetch *fetch;          /* NULL once done */
    size_t n_records, n_left; /* n_left: not yet ANSWERED */
    size_t n_parts;           /* not over; the op is free when it is 0 and fetch NULL */
    uint64_t end_ns;          /* when the fetch is done at the latest */
    bool by_deadline;         /* that is the call's deadline, not the command timeout */
    uint8_t *states;          /* (n_records), owned, of states_capacity */
    size_t states_capacity;
    part *parts; /* by next_of_op */
    uv_timer_t timer;
    op *next_waiting; /* for the cluster's map */
    op *next_free;
    op *next; /* of all */
};

/* Records of one fetch that one node is asked for. Kept for reuse like ops. */
struct part {
    /* Zeroed when it is taken. */
    hr_redis_waiter waiter; /* first: a waiter is its part */
    op *op;
    hr_redis_node *node; /* NULL: it waits for its timer to be routed */
    hr_redis_lane *lane; /* NULL: not sent */
    size_t n_records;
    size_t n_commands; /* unanswered */
    size_t n_first;    /* records that this part was the first to answer */
    size_t nbytes;     /* of its answers */
    uint64_t sent_ns;
    hr_cover cover; /* the node's when it was sent */
    bool asking;    /* each command is preceded by ASKING */
    bool is_hedge;  /* beside another part, which sees to what is to be asked for again */
    bool faulty;    /* lost, or sent elsewhere: its time says nothing */
    bool refused;   /* some of it, for good; a node that answers nothing else has failed */
    bool answered;  /* some of it */
    bool told;      /* its node has been told that it failed */
    bool has_named;
    hr_address named;
    hr_redis_filling filling;
    part *next_of_op, *next_in_wave, *next_free;
    /* Kept. */
    uint32_t *records; /* (n_records) of the fetch's order, owned; the top bit says where a command begins */
    size_t capacity;
    uv_timer_t timer; /* sent: to the hedge; no node: to being routed */
    part *next;       /* of all */
};

struct hr_redis_reads {
    hr_redis_reads_config config;
    const hr_redis_layout *layout;
    hr_redis_keys keys;
    hr_redis_node *node; /* the one server; NULL: a cluster */
    hr_redis_cluster *cluster;
    bool closing;
    op *ops, *free_ops, *first_waiting, **last_waiting;
    part *parts, *free_parts;
    uint64_t wave;        /* of routing; a node has at most one part in each */
    uint32_t *slot_first; /* (HR_REDIS_N_SLOTS) while routing: 1 + the slot's first record; 0 between */
    uint32_t *slot_next;  /* (scratch_capacity) 1 + the next record of the same slot */
    uint16_t *slots;      /* (scratch_capacity) of the records that are routed */
    uint32_t *again;      /* (scratch_capacity) records that are asked for again */
    size_t scratch_capacity;
};

/* --- redis_reads.c --- */

/* "LABEL: reason"; the first reason counts. Nothing where the fetch is done. */
void hr_redis__fail(op *o, hr_status code, const char *label, const char *reason);

/* A part has gone: the fetch is done if it was the last, or all is answered; the op is freed if it is over.
 */
void hr_redis__op_settle(op *o);

/* --- redis_part.c --- */

/* Asks for records[0..n) of the fetch's order, but those that are answered: each of the node that it is on.
 * Where nobody can be asked, and when out of memory, the fetch fails as far as it is not answered. */
void hr_redis__route(op *o, const uint32_t *records, size_t n);

/* The fetch has timed out: tells the nodes that kept it waiting. The label of one of them, or NULL. */
const char *hr_redis__blame(op *o, const char *reason);

#endif
