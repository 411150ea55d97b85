/* The server's own state, shared by the methods' files. Not for other folders. */
#ifndef HOMERANK_SERVICE_SERVER_STATE_H
#define HOMERANK_SERVICE_SERVER_STATE_H

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>

#include "service/reflection.h"
#include "service/rpc_call.h"
#include "service/server.h"

enum { HR_POLLER_IDLE_ARENAS = 64 };

struct hr_poller {
    hr_server *server; /* borrowed */
    grpc_completion_queue *queue;
    pthread_t thread;
    hr_rpc_tag posted_tag;
    _Atomic(hr_rpc *) posted;    /* see hr_rpc_post; the newest first */
    pthread_mutex_t arenas_lock; /* guards the arenas; they come back from any thread */
    hr_arena *arenas[HR_POLLER_IDLE_ARENAS];
    uint32_t n_arenas;
};

/* What a listener serves. */
typedef struct hr_service {
    const char *name;                    /* "package.Service": the one besides Health and ServerReflection */
    const hr_rpc_method *const *methods; /* (n_methods) of all; the catch-all comes last */
    size_t n_methods;
} hr_service;

struct hr_server {
    hr_server_options options; /* without `listen` */
    const hr_service *service; /* static */
    void *served;              /* borrowed: the Ranker's hr_pipeline, the Admin's hr_repository */
    grpc_server *core;
    uint16_t port;
    hr_poller *pollers;        /* (n_pollers) owned */
    uint32_t n_pollers;        /* of those whose thread runs */
    hr_reflection *reflection; /* owned; constant */
    hr_rpc_tag shutdown_tag;

    atomic_bool stopping;        /* new requests are refused, streams wind up, health says NOT_SERVING */
    atomic_bool closing;         /* set before the core's shutdown: no slot is requested again */
    atomic_uint n_open;          /* unary calls and stream messages accepted and not yet finished */
    atomic_uint n_streams;       /* streaming calls open */
    atomic_ullong n_open_nbytes; /* of the requests between accepted and ranked, as they are decoded */

    atomic_ullong accepted, answered, cancelled, refused; /* hr_server_counts */
    atomic_ullong refused_by_code[HR_GRPC_CODES];

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t idle;  /* core_is_shut is set, or calls became empty; CLOCK_MONOTONIC */
    hr_rpc *calls;        /* requested or open; each has an event to come or work under way */
    bool core_is_shut;
};

/* An arena for one request, of the poller's idle ones or new; NULL when out of memory. Any thread may put. */
hr_arena *hr_poller_take_arena(hr_poller *poller);
void hr_poller_put_arena(hr_poller *poller, hr_arena *arena);

/* True where the server has begun to shut down. */
bool hr_server_is_stopping(const hr_server *server);

/* What the service's methods work on. */
static inline hr_pipeline *hr_server_pipeline(const hr_server *server) {
    return server->served;
}
static inline hr_repository *hr_server_repository(const hr_server *server) {
    return server->served;
}

/* Whether the server has methods of the service "package.Service". */
bool hr_server_has_service(const hr_server *server, const char *name);

enum { HR_ADMIN_N_METHODS = 5 };
extern const hr_rpc_method hr_admin_methods[HR_ADMIN_N_METHODS];
extern const hr_rpc_method hr_rank_method, hr_rank_stream_method;
extern const hr_rpc_method hr_health_check_method, hr_health_watch_method;
extern const hr_rpc_method hr_reflection_method;
extern const hr_rpc_method hr_unknown_method;

#endif
