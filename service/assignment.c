/* What ranks a request: see assignment.h. */
#include "service/assignment.h"

hr_status hr_assignment_make(hr_repository *repository, const Homerank__V1__RankRequest *request,
                             hr_arena *arena, hr_assignment *assignment, hr_error *err) {
    *assignment = (hr_assignment){0};
    hr_status status = hr_repository_acquire(repository, request->model, &assignment->model, err);
    if (status != HR_OK) return status;
    status = hr_ranking_choose(assignment->model, request, arena, &assignment->choice, err);
    if (status != HR_OK) hr_assignment_release(assignment);
    return status;
}

void hr_assignment_release(hr_assignment *assignment) {
    hr_model_unref(assignment->model);
    assignment->model = NULL;
}
