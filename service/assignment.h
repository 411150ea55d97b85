/* What ranks a request (DESIGN 3, step 2): which model, which fusion, which tasks. The one place that decides
 * it, before the request is admitted. Any thread. */
#ifndef HOMERANK_SERVICE_ASSIGNMENT_H
#define HOMERANK_SERVICE_ASSIGNMENT_H

#include "base/arena.h"
#include "base/status.h"
#include "model/repository.h"
#include "proto/homerank.pb-c.h"
#include "service/ranking.h"

typedef struct hr_assignment {
    hr_model *model;          /* one reference, the assignment's */
    hr_ranking_choice choice; /* borrows from the model and the arena */
} hr_assignment;

/* Decides by the request: the model it names (else the repository's default), that model's own fusion, the
 * tasks it asks for. The caller releases the assignment; on failure there is nothing to release. Errors:
 * those of hr_repository_acquire and hr_ranking_choose. */
hr_status hr_assignment_make(hr_repository *repository, const Homerank__V1__RankRequest *request,
                             hr_arena *arena, hr_assignment *assignment, hr_error *err);

/* Drops the reference. The arena may be gone already. */
void hr_assignment_release(hr_assignment *assignment);

#endif
