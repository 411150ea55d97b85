/* What ranks a request (DESIGN 3, step 2): which model, which fusion, which tasks. The one place that decides
 * it, before the request is admitted. Any thread. */
#ifndef HOMERANK_SERVICE_ASSIGNMENT_H
#define HOMERANK_SERVICE_ASSIGNMENT_H

#include "base/arena.h"
#include "base/status.h"
#include "model/repository.h"
#include "proto/homerank.pb-c.h"
#include "service/experiments/experiments_watch.h"
#include "service/ranking.h"

/* Who asks for what. Borrowed. */
typedef struct hr_asked {
    const Homerank__V1__RankRequest *request;
    const hr_experiments_attributes *attributes; /* of the request; NULL: none */
    hr_experiments_watch *experiments;           /* to decide by; NULL: none */
    bool may_force;                              /* the request may force variations */
    uint64_t draw;                               /* hr_experiments_subject.draw */
} hr_asked;

typedef struct hr_assignment {
    hr_model *model;             /* one reference, the assignment's */
    hr_ranking_choice choice;    /* borrows from the model and the arena */
    hr_experiments *experiments; /* one reference, the assignment's; NULL: none were asked */
    hr_decision decision;        /* what they decided, and is served; borrows from them and the arena */
    const char *unserved;        /* why what they decided is not served; arena. NULL: it is */
} hr_assignment;

/* Decides by the request and, where it names no model, by the experiments; then by the repository's default,
 * the model's own fusion, all of its tasks. What experiments decide and cannot be served (a model that is
 * gone, a fusion that does not fit the version which a label names now) is left aside as a whole: the request
 * is then in no experiment. The caller releases the assignment; on failure there is nothing to release.
 * Errors: those of hr_repository_acquire and hr_ranking_choose; RESOURCE_EXHAUSTED. */
hr_status hr_assignment_make(hr_repository *repository, const hr_asked *asked, hr_arena *arena,
                             hr_assignment *assignment, hr_error *err);

/* Drops the references. The arena may be gone already. */
void hr_assignment_release(hr_assignment *assignment);

/* hr_experiments_options.check: whether the repository (arg) can serve what a ranking value asks for. A
 * default model that the repository does not have is nothing to check with. */
hr_status hr_assignment_check(void *repository, const char *model, const hr_fusion_spec *fusion,
                              const char *const *tasks, size_t n_tasks, hr_error *err);

#endif
