/* The tiny model of tests/model as a service without gRPC: a folder on disk, the repository and a pipeline
 * over the store "none:". What fails to start fails the test. */
#ifndef HOMERANK_TESTS_SERVICE_TINY_SERVICE_H
#define HOMERANK_TESTS_SERVICE_TINY_SERVICE_H

#include "service/pipeline.h"

typedef struct tiny_service {
    char root[256];   /* ROOT of the repository, removed at the end */
    char folder[512]; /* ROOT/tiny/1 */
    hr_store *store;
    hr_repository *repository;
    hr_pipeline *pipeline;
} tiny_service;

extern const hr_pipeline_options tiny_pipeline_options;

/* cmocka's setup and teardown; *state is the tiny_service. */
int tiny_service_setup(void **state);
int tiny_service_teardown(void **state);

/* The setup with another config.json for the same tensors. */
int tiny_service_setup_with(void **state, const char *config);

/* A request in the arena from its JSON form. */
Homerank__V1__RankRequest *tiny_request(hr_arena *arena, const char *json);

/* Submits the request and waits; returns the call's status, its error and response in *call. */
hr_status tiny_rank(hr_pipeline *pipeline, const Homerank__V1__RankRequest *request, hr_arena *arena,
                    hr_rank_call *call);

#endif
