/* Loading a version and freeing models: see repository_internal.h.
 *
 * The life of a loaded model: the deciding thread publishes it; when it is replaced, and the last request has
 * dropped its reference, that request's thread only says so (retire); the deciding thread hands the word on,
 * and the loading thread frees the memory. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/thread.h"
#include "model/repository_internal.h"

/* A model's message on its way out of memory. */
typedef struct leaving_model {
    hr_repository_message message; /* first */
    hr_repository *repository;
    hr_version *version; /* which counts it in n_retired */
    hr_model *model;
} leaving_model;

/* ---- Freeing ---- */

/* On the deciding thread. */
static void count_freed(hr_repository *repository, hr_repository_message *message) {
    leaving_model *leaving = (leaving_model *)message;
    pthread_mutex_lock(&repository->catalog_lock);
    leaving->version->n_retired--;
    pthread_mutex_unlock(&repository->catalog_lock);
    free(leaving);
}

/* On the loading thread. */
static void free_model(hr_repository *repository, hr_repository_message *message) {
    hr_model_destroy(((leaving_model *)message)->model);
    message->handle = count_freed;
    hr_mailbox_put(repository->to_decider, &message->mail);
}

/* On the deciding thread; or, once the threads have ended, on the one that closes. */
static void hand_on(hr_repository *repository, hr_repository_message *message) {
    if (repository->running) {
        message->handle = free_model;
        hr_mailbox_put(repository->to_loader, &message->mail);
    } else {
        hr_model_destroy(((leaving_model *)message)->model);
        free(message);
    }
}

/* On whatever thread dropped the last reference. */
static void retire(void *arg) {
    leaving_model *leaving = arg;
    hr_mailbox_put(leaving->repository->to_decider, &leaving->message.mail);
}

static hr_status prepare_leaving(hr_repository *repository, const hr_load_job *job, hr_model *model,
                                 hr_error *err) {
    if (repository->root == NULL) return HR_OK; /* nobody to hand it to: freed by the last to drop it */
    leaving_model *leaving = malloc(sizeof *leaving);
    if (leaving == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    *leaving = (leaving_model){
        .message.handle = hand_on, .repository = repository, .version = job->version, .model = model};
    hr_model_on_last_unref(model, retire, leaving);
    return HR_OK;
}

/* ---- Loading ---- */

/* Runs every worker over a batch of empty rows, which are valid ones, so that the first request finds all
 * memory touched and nothing left to be made. */
static hr_status warm(const hr_model *model, uint32_t n_workers, uint32_t n_rows, hr_error *err) {
    const hr_schema *schema = hr_model_schema(model);
    const hr_plan *plan = hr_model_plan(model);
    uint32_t *user = calloc(hr_row_words(schema, HR_ENTITY_USER) + 1, sizeof *user);
    uint32_t *context = calloc(hr_row_words(schema, HR_ENTITY_CONTEXT) + 1, sizeof *context);
    uint32_t *items = calloc((size_t)n_rows * hr_row_words(schema, HR_ENTITY_ITEM) + 1, sizeof *items);
    float *logits = calloc((size_t)n_rows * plan->n_tasks + 1, sizeof *logits);
    hr_status status = HR_OK;
    if (user == NULL || context == NULL || items == NULL || logits == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    const hr_slice slice = {
        .user = user, .context = context, .items = items, .n_rows = n_rows, .logits = logits};
    for (uint32_t w = 0; status == HR_OK && w < n_workers; w++)
        status = hr_model_forward(model, w, &slice, 1, err);
    free(logits);
    free(items);
    free(context);
    free(user);
    return status;
}

/* What follows on hr_model_load, up to a model that may be published. */
static hr_status make_ready(hr_repository *repository, const hr_load_job *job, hr_model *model,
                            hr_error *err) {
    const hr_repository_options *options = &repository->options;
    hr_status status = HR_OK;
    if (options->prepare != NULL) status = options->prepare(model, job->dir, options->prepare_arg, err);
    if (status == HR_OK && options->warm_rows > 0)
        status = warm(model, options->model.n_workers, options->warm_rows, err);
    if (status == HR_OK && atomic_load(&job->cancelled))
        status = hr_error_set(err, HR_CANCELLED, "cancelled");
    hr_version_stamp now = hr_version_stamp_of(job->dir);
    if (status == HR_OK && !hr_version_stamps_equal(&job->stamp, &now))
        status = hr_error_set(err, HR_UNAVAILABLE, "its files changed while they were read");
    if (status == HR_OK) status = prepare_leaving(repository, job, model, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "model %s", hr_model_label(model));
}

void hr_repository_load__(hr_repository *repository, hr_load_job *job) {
    hr_model_options options = repository->options.model;
    options.cancelled = &job->cancelled;
    uint64_t begun_ns = hr_clock_ns();
    hr_model *model = NULL;
    job->stamp = hr_version_stamp_of(job->dir);
    hr_status status =
        hr_model_load(job->dir, job->group->name, job->version->version, &options, &model, &job->error);
    if (status == HR_OK) {
        status = make_ready(repository, job, model, &job->error);
        if (status != HR_OK) hr_model_unref(model);
    }
    job->loaded = (hr_loaded_model){0};
    if (status != HR_OK) return;
    job->error = (hr_error){.code = HR_OK}; /* whatever was found and borne on the way */
    job->loaded = (hr_loaded_model){.model = model,
                                    .load_ms = (hr_clock_ns() - begun_ns) / 1000000u,
                                    .loaded_unix_ms = hr_clock_wall_us() / 1000u};
}

void *hr_repository_loader__(void *arg) {
    hr_repository *repository = arg;
    hr_thread_give_way();
    while (!repository->loader_stopping) {
        hr_mail *mail = hr_mailbox_take(repository->to_loader, UINT64_MAX);
        while (mail != NULL) {
            hr_repository_message *message = (hr_repository_message *)mail;
            mail = mail->next;
            message->handle(repository, message);
        }
    }
    return NULL;
}
