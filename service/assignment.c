/* What ranks a request: see assignment.h. */
#include "service/assignment.h"

#include <string.h>

/* The model, and of it what is wished. On failure nothing is held. */
static hr_status choose(hr_repository *repository, const char *model, const hr_ranking_wish *wish,
                        hr_arena *arena, hr_assignment *assignment, hr_error *err) {
    hr_status status = hr_repository_acquire(repository, model, &assignment->model, err);
    if (status != HR_OK) return status;
    status = hr_ranking_choose(assignment->model, wish, arena, &assignment->choice, err);
    if (status == HR_OK) return HR_OK;
    hr_model_unref(assignment->model);
    assignment->model = NULL;
    return status;
}

static hr_status too_large(hr_error *err) {
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the experiments exceed the request's memory cap");
}

static hr_status decide(const hr_experiments *experiments, const hr_asked *asked, hr_arena *arena,
                        hr_decision *decision, hr_error *err) {
    const Homerank__V1__RankRequest *request = asked->request;
    const size_t n_forced = asked->may_force ? request->n_forced_variations : 0;
    hr_forced_variation *forced = hr_arena_calloc(arena, n_forced, sizeof *forced);
    if (forced == NULL) return too_large(err);
    for (size_t i = 0; i < n_forced; i++)
        forced[i] = (hr_forced_variation){.experiment = request->forced_variations[i]->key,
                                          .variation = request->forced_variations[i]->value};
    const hr_experiments_subject subject = {.user_id = request->user_id,
                                            .attributes = asked->attributes,
                                            .forced = forced,
                                            .n_forced = n_forced,
                                            .may_force = asked->may_force,
                                            .has_tasks = request->n_tasks > 0,
                                            .draw = asked->draw};
    return hr_experiments_decide(experiments, &subject, arena, decision, err);
}

/* Serves what the experiments decide, or says why it cannot be. */
static hr_status follow(hr_repository *repository, const hr_asked *asked, const hr_ranking_wish *own,
                        hr_arena *arena, hr_assignment *assignment, hr_error *err) {
    const hr_decision *decision = &assignment->decision;
    hr_ranking_wish wish = *own;
    hr_error why;
    assignment->experiments = hr_experiments_watch_acquire(asked->experiments);
    hr_status status = decide(assignment->experiments, asked, arena, &assignment->decision, err);
    if (status != HR_OK) return status;
    wish.fusion = decision->fusion;
    if (own->n_tasks == 0) {
        wish.tasks = decision->tasks;
        wish.n_tasks = decision->n_tasks;
    }
    const char *model = decision->model == NULL ? "" : decision->model;
    if (choose(repository, model, &wish, arena, assignment, &why) == HR_OK) return HR_OK;
    hr_experiments_watch_unserved(asked->experiments);
    assignment->decision = (hr_decision){0};
    assignment->unserved = hr_arena_strndup(arena, why.message, strlen(why.message));
    return assignment->unserved == NULL ? too_large(err) : HR_OK;
}

hr_status hr_assignment_make(hr_repository *repository, const hr_asked *asked, hr_arena *arena,
                             hr_assignment *assignment, hr_error *err) {
    const Homerank__V1__RankRequest *request = asked->request;
    const hr_ranking_wish own = {.tasks = (const char *const *)request->tasks, .n_tasks = request->n_tasks};
    *assignment = (hr_assignment){0};
    hr_status status = HR_OK;
    if (asked->experiments != NULL && request->model[0] == '\0')
        status = follow(repository, asked, &own, arena, assignment, err);
    if (status == HR_OK && assignment->model == NULL)
        status = choose(repository, request->model, &own, arena, assignment, err);
    if (status != HR_OK) hr_assignment_release(assignment);
    return status;
}

void hr_assignment_release(hr_assignment *assignment) {
    hr_model_unref(assignment->model);
    hr_experiments_unref(assignment->experiments);
    assignment->model = NULL;
    assignment->experiments = NULL;
}

hr_status hr_assignment_check(void *repository, const char *model, const hr_fusion_spec *fusion,
                              const char *const *tasks, size_t n_tasks, hr_error *err) {
    enum { CHECK_NBYTES = 1 << 20 };
    const hr_ranking_wish wish = {.tasks = tasks, .n_tasks = n_tasks, .fusion = fusion};
    hr_assignment assignment = {0};
    hr_model *fallback = NULL;
    if (model == NULL && hr_repository_acquire(repository, "", &fallback, NULL) != HR_OK) return HR_OK;
    hr_model_unref(fallback);
    hr_arena *arena = hr_arena_create(CHECK_NBYTES);
    if (arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for experiments");
    hr_status status = choose(repository, model == NULL ? "" : model, &wish, arena, &assignment, err);
    hr_assignment_release(&assignment);
    hr_arena_destroy(arena);
    return status;
}
