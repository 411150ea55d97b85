/* The model repository ROOT/<model name>/<version>/: which models are served (MODEL.md 1).
 *
 * Models are loaded on the thread that opens the repository; from then on any thread may acquire and visit.
 */
#ifndef HOMERANK_MODEL_REPOSITORY_H
#define HOMERANK_MODEL_REPOSITORY_H

#include "base/status.h"
#include "model/model.h"

typedef struct hr_repository hr_repository;

typedef struct hr_repository_options {
    hr_model_options model;
    const char *default_model; /* borrowed for the call; NULL or "": none */
    /* (optional) Called with every loaded version before it is published; a failure refuses the version.
     * The service attaches the schema's feature encoder and checks verify.jsonl here: model/ knows neither.
     */
    hr_status (*prepare)(hr_model *model, const char *dir, void *arg, hr_error *err);
    void *prepare_arg;
} hr_repository_options;

/* Scans root and loads the latest version of every model that loads; a version that fails is logged and the
 * next older one is tried. Errors: IO (root), NOT_FOUND (no model could be loaded, or default_model is none
 * of them; the first failure's reason is in the message). */
hr_status hr_repository_open(const char *root, const hr_repository_options *options,
                             hr_repository **repository, hr_error *err);
void hr_repository_close(hr_repository *repository); /* drops its references; NULL is allowed */

/* A repository of one model from its plain folder (hr_model_identify), for offline scoring. Errors: those of
 * hr_model_load and of prepare. */
hr_status hr_repository_open_folder(const char *dir, const hr_repository_options *options,
                                    hr_repository **repository, hr_error *err);

/* Resolves RankRequest.model ("", "name", "name@version", "name:label") to a model with a reference for the
 * caller. Errors: NOT_FOUND, INVALID_ARGUMENT (not of that form; "" with several models and no default). */
hr_status hr_repository_acquire(hr_repository *repository, const char *spec, hr_model **model, hr_error *err);

/* Calls visit for every served model, newest version first, with a reference held during the call. */
void hr_repository_visit(hr_repository *repository, void (*visit)(const hr_model *model, void *arg),
                         void *arg);

#endif
