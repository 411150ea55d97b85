/* A running server for the tests: a small model, a real pipeline, a real Redis with nothing in it, a client.
 *
 * The gate is that Redis, stopped by a signal: while it is shut, every accepted request waits in its fetch.
 */
#ifndef HOMERANK_TESTS_SERVICE_SERVER_FIXTURE_H
#define HOMERANK_TESTS_SERVICE_SERVER_FIXTURE_H

#include <stdint.h>

#include "base/arena.h"
#include "features/store.h"
#include "model/repository.h"
#include "proto/homerank.pb-c.h"
#include "service/pipeline.h"
#include "service/server.h"
#include "tests/features/redis_server.h"
#include "tests/service/rpc_peer.h"

#define RANK_PATH   "/homerank.v1.Ranker/Rank"
#define STREAM_PATH "/homerank.v1.Ranker/RankStream"

/* What only one test looks at is ready for the next: redis, the model and the pipeline live for the group. */
typedef struct fixture {
    redis_server redis;
    hr_store *store;
    hr_repository *repository;
    hr_pipeline *pipeline;
    hr_server *server;
    peer *client;
} fixture;

/* cmocka's group setup and teardown: everything but the server. *state is the fixture. */
int fixture_group_setup(void **state);
int fixture_group_teardown(void **state);

/* Starts the server of a test, with the defaults where options is NULL, and connects the client. */
extern const hr_server_options fixture_server_options;
void fixture_serve(fixture *f, const hr_server_options *options);
void fixture_stop(fixture *f);

/* A test that is stopped, with the gate open, however it ends. */
#define FIXTURE_TEST(test) cmocka_unit_test_teardown(test, fixture_teardown)
int fixture_teardown(void **state);

void fixture_shut_gate(fixture *f);
void fixture_open_gate(fixture *f);

/* Waits until the count (of the server's) is at least n; fails the test where it does not come to it. */
void fixture_wait_accepted(fixture *f, uint64_t n);
void fixture_wait_cancelled(fixture *f, uint64_t n);

/* Returns once the server has read whatever the client sent before, a cancel too. */
void fixture_round_trip(fixture *f);

/* A request named request_id for n_items items, in the arena. */
Homerank__V1__RankRequest *fixture_request(hr_arena *arena, const char *request_id, uint32_t n_items);

/* Sends the request on the call. */
void fixture_send(peer_call *call, const char *request_id, uint32_t n_items);

/* Reads an answer of the call and asserts that it is request_id's, with n_items ranked. */
void fixture_expect(peer_call *call, const char *request_id, uint32_t n_items);

#endif
