/* What homerank.v1.Admin answers, from the repository's status. Any thread; all in the caller's arena. */
#ifndef HOMERANK_SERVICE_ADMIN_MESSAGES_H
#define HOMERANK_SERVICE_ADMIN_MESSAGES_H

#include "base/arena.h"
#include "base/status.h"
#include "model/repository.h"
#include "proto/admin.pb-c.h"

/* Errors of all: RESOURCE_EXHAUSTED (the arena is full). */

hr_status hr_admin_list_models(hr_repository *repository, hr_arena *arena,
                               Homerank__V1__ListModelsResponse *response, hr_error *err);

/* Of one model ("": of all) and one version (0: of all). Errors: NOT_FOUND where a name or version was asked
 * for and there is none. */
hr_status hr_admin_get_status(hr_repository *repository, const char *name, uint64_t version, hr_arena *arena,
                              Homerank__V1__GetStatusResponse *response, hr_error *err);

/* The labels of one model; none where it is not known. */
hr_status hr_admin_labels(hr_repository *repository, const char *name, hr_arena *arena,
                          Homerank__V1__SetLabelResponse *response, hr_error *err);

#endif
