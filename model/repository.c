/* Opening and closing a repository, and what any thread may ask of it: see repository.h. */
#include "model/repository.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "model/repository_internal.h"

enum { MAX_NAME_NBYTES = 255 };

/* ---- Creation ---- */

static char *copy_text(const char *text) {
    return strdup(text == NULL ? "" : text);
}

/* root NULL: of one folder. */
static hr_status create(const char *root, const hr_repository_options *options, hr_repository **repository,
                        hr_error *err) {
    *repository = NULL;
    hr_repository *made = aligned_alloc(_Alignof(hr_repository), sizeof *made);
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    memset(made, 0, sizeof *made);
    pthread_mutex_init(&made->catalog_lock, NULL);
    made->options = *options;
    made->root = root == NULL ? NULL : strdup(root);
    made->backend = copy_text(options->model.backend);
    made->default_spec = copy_text(options->default_model);
    made->to_decider = hr_mailbox_create();
    made->to_loader = hr_mailbox_create();
    hr_status status = HR_OK;
    if ((root != NULL && made->root == NULL) || made->backend == NULL || made->default_spec == NULL ||
        made->to_decider == NULL || made->to_loader == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    if (status == HR_OK)
        status =
            hr_catalog_create(options->policy, options->versions, options->n_versions, &made->catalog, err);
    made->options.model.backend = made->backend;
    made->options.default_model = made->default_spec;
    made->options.versions = NULL;
    made->options.n_versions = 0;
    if (status != HR_OK) {
        hr_repository_close(made);
        return status;
    }
    *repository = made;
    return HR_OK;
}

static hr_status start_threads(hr_repository *repository, hr_error *err) {
    hr_status status =
        hr_thread_start(&repository->loader, "model-loader", hr_repository_loader__, repository, err);
    if (status != HR_OK) return status;
    repository->running = true;
    status = hr_thread_start(&repository->decider, "model-decider", hr_repository_decider__, repository, err);
    if (status == HR_OK) return HR_OK;
    hr_mailbox_put(repository->to_loader, &repository->stop_loader.mail);
    pthread_join(repository->loader, NULL);
    repository->running = false;
    return status;
}

/* ---- Opening ---- */

static hr_status check_any(const char *root, hr_repository *repository, const hr_error *first,
                           hr_error *err) {
    hr_model *model;
    hr_error why;
    const char *wanted = repository->default_spec;
    bool any = false;
    for (size_t g = 0; g < repository->catalog->n_groups; g++)
        any = any || hr_group_n_loaded(repository->catalog->groups[g]) > 0;
    if (!any) {
        hr_error_set(err, HR_NOT_FOUND, "%s",
                     first->code != HR_OK
                         ? first->message
                         : "expected ROOT/<model name>/<version>/config.json, found no such folder");
        return hr_error_prefix(err, "no model could be loaded from %s", hr_quote(root, strlen(root)).text);
    }
    if (wanted[0] == '\0') return HR_OK;
    if (hr_repository_acquire(repository, wanted, &model, &why) == HR_OK) {
        hr_model_unref(model);
        return HR_OK;
    }
    if (first->code != HR_OK) why = *first; /* that is probably why */
    return hr_error_set(err, HR_NOT_FOUND, "default model %s: %s", hr_quote(wanted, strlen(wanted)).text,
                        why.message);
}

static void on_drain(hr_repository *repository, hr_repository_message *message);
static void on_stop(hr_repository *repository, hr_repository_message *message);
static void on_stop_loader(hr_repository *repository, hr_repository_message *message);

hr_status hr_repository_open(const char *root, const hr_repository_options *options,
                             hr_repository **repository, hr_error *err) {
    hr_repository *opened;
    *repository = NULL;
    hr_status status = create(root, options, &opened, err);
    if (status != HR_OK) return status;
    opened->drain.handle = on_drain;
    opened->stop.handle = on_stop;
    opened->stop_loader.handle = on_stop_loader;
    hr_error first = {.code = HR_OK};
    status = hr_repository_scan__(opened, err);
    if (status == HR_OK) status = hr_repository_load_all__(opened, &first, err);
    if (status == HR_OK) status = check_any(root, opened, &first, err);
    if (status == HR_OK) status = start_threads(opened, err);
    if (status != HR_OK) {
        hr_repository_close(opened);
        return status;
    }
    *repository = opened;
    return HR_OK;
}

/* The one version of the folder, loaded by the code that loads those of a root. */
static hr_status load_folder(hr_repository *repository, const char *dir, const char *name, uint64_t version,
                             hr_error *err) {
    hr_load_job *job = &repository->job;
    job->group = hr_catalog_add(repository->catalog, name);
    job->version = job->group == NULL ? NULL : hr_group_add(job->group, version);
    job->dir = strdup(dir);
    if (job->version == NULL || job->dir == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    job->version->on_disk = true;
    hr_repository_load__(repository, job);
    if (job->error.code != HR_OK) return hr_error_set(err, job->error.code, "%s", job->error.message);
    hr_error result;
    hr_repository_take_result__(repository, &result);
    return hr_repository_settle__(repository, err);
}

hr_status hr_repository_open_folder(const char *dir, const hr_repository_options *options,
                                    hr_repository **repository, hr_error *err) {
    char name[MAX_NAME_NBYTES + 1];
    uint64_t version;
    hr_repository *opened;
    *repository = NULL;
    hr_status status = hr_model_identify(dir, name, sizeof name, &version, err);
    if (status == HR_OK) status = create(NULL, options, &opened, err);
    if (status != HR_OK) return status;
    status = load_folder(opened, dir, name, version, err);
    if (status != HR_OK) {
        hr_repository_close(opened);
        return status;
    }
    *repository = opened;
    return HR_OK;
}

/* ---- Closing ---- */

static void on_drain(hr_repository *repository, hr_repository_message *message) {
    (void)message;
    hr_error error;
    hr_error_set(&error, HR_UNAVAILABLE, "the server is shutting down");
    if (repository->job.version != NULL) atomic_store(&repository->job.cancelled, true);
    for (size_t g = 0; g < repository->catalog->n_groups; g++) {
        const hr_version_group *group = repository->catalog->groups[g];
        for (size_t v = 0; v < group->n_versions; v++) hr_repository_answer__(group->versions[v], &error);
    }
}

static void on_stop(hr_repository *repository, hr_repository_message *message) {
    (void)message;
    repository->stopping = true;
}

static void on_stop_loader(hr_repository *repository, hr_repository_message *message) {
    (void)message;
    repository->loader_stopping = true;
}

void hr_repository_drain(hr_repository *repository) {
    bool was = atomic_exchange(&repository->draining, true);
    if (!was && repository->running) hr_mailbox_put(repository->to_decider, &repository->drain.mail);
}

/* Models on their way out, once no thread is there to see to them. */
static void take_leaving(hr_repository *repository) {
    hr_mail *mail = hr_mailbox_take(repository->to_decider, 0);
    while (mail != NULL) {
        hr_repository_message *message = (hr_repository_message *)mail;
        mail = mail->next;
        message->handle(repository, message);
    }
}

static void stop_threads(hr_repository *repository) {
    hr_repository_drain(repository);
    hr_mailbox_put(repository->to_decider, &repository->stop.mail);
    pthread_join(repository->decider, NULL);
    hr_mailbox_put(repository->to_loader, &repository->stop_loader.mail);
    pthread_join(repository->loader, NULL);
    repository->running = false;
    take_leaving(repository);
}

void hr_repository_close(hr_repository *repository) {
    if (repository == NULL) return;
    if (repository->running) stop_threads(repository);
    hr_served_destroy(atomic_load(&repository->served));
    hr_catalog_destroy(repository->catalog);
    if (repository->to_decider != NULL) take_leaving(repository);
    hr_mailbox_destroy(repository->to_loader);
    hr_mailbox_destroy(repository->to_decider);
    free(repository->job.dir);
    free(repository->default_spec);
    free(repository->backend);
    free(repository->root);
    pthread_mutex_destroy(&repository->catalog_lock);
    free(repository);
}

/* ---- What is served ---- */

static const hr_served *begin_reading(hr_repository *repository) {
    atomic_fetch_add(&repository->readers, 1);
    return atomic_load(&repository->served);
}

static void end_reading(hr_repository *repository) {
    atomic_fetch_sub(&repository->readers, 1);
}

hr_status hr_repository_acquire(hr_repository *repository, const char *spec, hr_model **model,
                                hr_error *err) {
    const hr_served *served = begin_reading(repository);
    hr_status status = hr_served_acquire(served, spec, model, err);
    end_reading(repository);
    return status;
}

void hr_repository_visit(hr_repository *repository, void (*visit)(const hr_model *model, void *arg),
                         void *arg) {
    const hr_served *served = begin_reading(repository);
    hr_served_visit(served, visit, arg);
    end_reading(repository);
}

const char *hr_repository_default(const hr_repository *repository) {
    return repository->default_spec;
}

/* ---- Status ---- */

const char *hr_version_state_text(hr_version_state state) {
    switch (state) {
#define STATE_CASE(name, text)                                                                               \
    case HR_VERSION_##name: return text;
        HR_VERSION_STATE_MAP(STATE_CASE)
#undef STATE_CASE
    }
    return "unknown";
}

static hr_version_state state_of(const hr_version *version) {
    if (version->serving.model != NULL) return HR_VERSION_SERVING;
    if (version->loading || version->loaded.model != NULL) return HR_VERSION_LOADING;
    if (version->n_retired > 0) return HR_VERSION_UNLOADING;
    return version->failure.code != HR_OK ? HR_VERSION_FAILED : HR_VERSION_AVAILABLE;
}

static hr_version_status status_of(const hr_version *version) {
    return (hr_version_status){
        .version = version->version,
        .state = state_of(version),
        .reason = version->failure.code != HR_OK ? version->failure.message : "",
        .model = version->serving.model,
        .load_ms = version->serving.load_ms,
        .loaded_unix_ms = version->serving.loaded_unix_ms,
    };
}

static const char *error_of(const hr_version_group *group) {
    if (group->folder_error.code != HR_OK) return group->folder_error.message;
    return group->labels_error.code != HR_OK ? group->labels_error.message : "";
}

void hr_repository_status(hr_repository *repository,
                          void (*visit)(const hr_model_status *model, const hr_version_status *version,
                                        void *arg),
                          void *arg, char error[HR_ERROR_MESSAGE_SIZE]) {
    pthread_mutex_lock(&repository->catalog_lock);
    const hr_error *scan = &repository->scan_error;
    snprintf(error, HR_ERROR_MESSAGE_SIZE, "%s", scan->code != HR_OK ? scan->message : "");
    for (size_t g = 0; g < repository->catalog->n_groups; g++) {
        const hr_version_group *group = repository->catalog->groups[g];
        const hr_model_status model = {.name = group->name,
                                       .labels = group->labels,
                                       .n_labels = group->n_labels,
                                       .error = error_of(group)};
        for (size_t v = 0; v < group->n_versions; v++) {
            const hr_version_status version = status_of(group->versions[v]);
            visit(&model, &version, arg);
        }
    }
    pthread_mutex_unlock(&repository->catalog_lock);
}

/* ---- Changes ---- */

void hr_repository_submit(hr_repository *repository, hr_repository_call *call) {
    call->resolved = call->version;
    call->error.code = HR_OK;
    if (repository->root == NULL)
        hr_error_set(&call->error, HR_UNIMPLEMENTED, "a repository of one folder does not change");
    else if (atomic_load(&repository->draining))
        hr_error_set(&call->error, HR_UNAVAILABLE, "the server is shutting down");
    if (call->error.code != HR_OK) {
        call->done(call);
        return;
    }
    call->message.handle = hr_repository_take_call__;
    hr_mailbox_put(repository->to_decider, &call->message.mail);
}
