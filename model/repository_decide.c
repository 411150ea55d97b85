/* The deciding thread: looks at the folders, takes messages, has versions loaded, publishes: see
 * repository_internal.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "model/labels.h"
#include "model/repository_internal.h"

/* ---- A look at the folders ---- */

void hr_repository_set_labels__(hr_repository *repository, hr_version_group *group, hr_version_label *labels,
                                size_t n_labels) {
    hr_group_set_labels(group, labels, n_labels);
    repository->unpublished = true; /* a label that is gone is no label that moves */
}

/* A file that says nonsense is read again when it changes, one that could not be read at the next look. */
static void take_labels(hr_repository *repository, hr_version_group *group, const hr_file_stamp *stamp) {
    char *path;
    hr_version_label *labels = NULL;
    size_t n_labels = 0;
    hr_error why = {.code = HR_OK};
    if (asprintf(&path, "%s/%s/labels.json", repository->root, group->name) < 0) return;
    hr_status status = hr_labels_read(path, &labels, &n_labels, &why);
    free(path);
    if (status != HR_OK && strcmp(group->labels_error.message, why.message) != 0)
        hr_log(HR_LOG_ERROR, "labels refused, the old ones stay", HR_LOG_STR("model", group->name),
               HR_LOG_STR("reason", why.message));
    pthread_mutex_lock(&repository->catalog_lock);
    group->labels_error = why;
    if (status == HR_OK) hr_repository_set_labels__(repository, group, labels, n_labels);
    if (status == HR_OK || status == HR_INVALID_ARGUMENT) group->labels_stamp = *stamp;
    pthread_mutex_unlock(&repository->catalog_lock);
}

static void take_changed_labels(hr_repository *repository, const hr_folders *folders) {
    for (size_t m = 0; m < folders->n_models; m++) {
        const hr_model_folder *folder = &folders->models[m];
        hr_version_group *group = hr_catalog_find(repository->catalog, folder->name);
        if (folder->error.code != HR_OK || hr_file_stamps_equal(&group->labels_stamp, &folder->labels))
            continue;
        take_labels(repository, group, &folder->labels);
    }
}

hr_status hr_repository_scan__(hr_repository *repository, hr_error *err) {
    hr_folders folders;
    hr_error why = {.code = HR_OK};
    hr_status status = hr_folders_read(repository->root, &folders, &why);
    bool is_news = repository->running && strcmp(repository->scan_error.message, why.message) != 0;
    if (status != HR_OK && is_news) /* the one who opens is told */
        hr_log(HR_LOG_ERROR, "model repository cannot be read", HR_LOG_STR("reason", why.message));
    pthread_mutex_lock(&repository->catalog_lock);
    if (status == HR_OK) status = hr_catalog_merge(repository->catalog, &folders, &why);
    repository->scan_error = why;
    pthread_mutex_unlock(&repository->catalog_lock);
    if (status == HR_OK) take_changed_labels(repository, &folders);
    hr_folders_clear(&folders);
    return status == HR_OK ? HR_OK : hr_error_set(err, status, "%s", why.message);
}

/* ---- Loading ---- */

/* Prepares the job; false where there is nothing to load, or no memory to say so: then at the next turn. */
static bool choose_job(hr_repository *repository, bool settled) {
    hr_load_job *job = &repository->job;
    hr_load_choice choice = hr_catalog_next_load(repository->catalog, settled, hr_clock_ns());
    if (choice.version == NULL) return false;
    if (asprintf(&job->dir, "%s/%s/%llu", repository->root, choice.group->name,
                 (unsigned long long)choice.version->version) < 0)
        return false;
    job->group = choice.group;
    job->version = choice.version;
    atomic_store(&job->cancelled, false);
    pthread_mutex_lock(&repository->catalog_lock);
    choice.version->loading = true;
    pthread_mutex_unlock(&repository->catalog_lock);
    return true;
}

static void log_loaded(const hr_load_job *job) {
    char how[160];
    uint64_t embeddings, network = hr_model_parameters(job->loaded.model, &embeddings);
    hr_engine_describe(hr_model_engine(job->loaded.model), how, sizeof how);
    hr_log(HR_LOG_INFO, "model loaded", HR_LOG_STR("model", hr_model_label(job->loaded.model)),
           HR_LOG_STR("backend", how), HR_LOG_INT("network_parameters", network),
           HR_LOG_INT("embedding_parameters", embeddings), HR_LOG_INT("load_ms", job->loaded.load_ms));
}

/* Takes a model out of service; the table that is published may still have it. */
static void take_out(hr_version *version) {
    hr_model *model = version->loaded.model;
    version->loaded = (hr_loaded_model){0};
    if (model == NULL) return;
    version->n_retired++;
    hr_model_unref(model);
}

static void take_model(hr_repository *repository, const hr_load_job *job) {
    hr_version *version = job->version;
    log_loaded(job);
    take_out(version); /* the same version, of other files */
    version->loaded = job->loaded;
    version->files = job->stamp;
    version->failure = (hr_error){.code = HR_OK};
    version->n_failures = 0;
    bool asked_for = version->calls != NULL;
    if (asked_for && !hr_catalog_keeps(repository->catalog, job->group, version)) version->kept = true;
    repository->unpublished = true;
}

/* What is not the files' fault (memory, the device, the disk) is tried again, ever less often. */
static uint64_t next_try_ns(const hr_repository *repository, const hr_version *version) {
    enum { LEAST_MS = 1000, MOST_MS = 300000, MAX_DOUBLINGS = 9 };
    if (version->failure.code == HR_INVALID_ARGUMENT || repository->options.poll_ms == 0) return UINT64_MAX;
    uint64_t wait_ms = repository->options.poll_ms > LEAST_MS ? repository->options.poll_ms : LEAST_MS;
    uint32_t n = version->n_failures - 1;
    wait_ms <<= n < MAX_DOUBLINGS ? n : MAX_DOUBLINGS;
    return hr_clock_ns() + (wait_ms < MOST_MS ? wait_ms : MOST_MS) * 1000000u;
}

static void take_failure(const hr_repository *repository, const hr_load_job *job) {
    hr_version *version = job->version;
    bool again = version->n_failures > 0 && hr_version_stamps_equal(&version->failed, &job->stamp);
    hr_log(again && version->calls == NULL ? HR_LOG_DEBUG : HR_LOG_ERROR, "model version refused",
           HR_LOG_STR("model", job->group->name), HR_LOG_INT("version", version->version),
           HR_LOG_STR("reason", job->error.message));
    version->failure = job->error;
    version->failed = job->stamp;
    version->n_failures = again ? version->n_failures + 1 : 1;
    version->retry_ns = next_try_ns(repository, version);
}

void hr_repository_take_result__(hr_repository *repository, hr_error *result) {
    hr_load_job *job = &repository->job;
    bool cancelled = atomic_load(&job->cancelled);
    pthread_mutex_lock(&repository->catalog_lock);
    job->version->loading = false;
    if (cancelled && job->loaded.model != NULL) { /* too late to stop it */
        job->version->n_retired++;
        hr_model_unref(job->loaded.model);
    } else if (job->loaded.model != NULL) {
        take_model(repository, job);
    } else if (!cancelled) {
        take_failure(repository, job);
    }
    pthread_mutex_unlock(&repository->catalog_lock);
    *result = job->error;
    if (cancelled) hr_error_set(result, HR_CANCELLED, "it was unloaded while it was being loaded");
    free(job->dir);
    job->dir = NULL;
    job->version = NULL;
}

hr_status hr_repository_load_all__(hr_repository *repository, hr_error *first, hr_error *err) {
    while (choose_job(repository, false)) {
        hr_error result;
        hr_repository_load__(repository, &repository->job);
        hr_repository_take_result__(repository, &result);
        if (first->code == HR_OK) *first = result;
    }
    return hr_repository_settle__(repository, err);
}

/* On the deciding thread. */
static void take_loaded(hr_repository *repository, hr_repository_message *message) {
    hr_version *version = ((hr_load_job *)message)->version;
    hr_error result, published;
    hr_repository_take_result__(repository, &result);
    bool settled = hr_repository_settle__(repository, &published) == HR_OK;
    hr_repository_answer__(version, result.code != HR_OK || settled ? &result : &published);
}

/* On the loading thread. */
static void load(hr_repository *repository, hr_repository_message *message) {
    hr_repository_load__(repository, (hr_load_job *)message);
    message->handle = take_loaded;
    hr_mailbox_put(repository->to_decider, &message->mail);
}

static void begin_next_load(hr_repository *repository) {
    hr_load_job *job = &repository->job;
    if (job->version != NULL || !choose_job(repository, true)) return;
    job->message.handle = load;
    hr_mailbox_put(repository->to_loader, &job->message.mail);
}

/* ---- Publishing ---- */

static void note_published(hr_repository *repository) {
    pthread_mutex_lock(&repository->catalog_lock);
    for (size_t g = 0; g < repository->catalog->n_groups; g++) {
        const hr_version_group *group = repository->catalog->groups[g];
        for (size_t v = 0; v < group->n_versions; v++)
            group->versions[v]->serving = group->versions[v]->loaded;
    }
    pthread_mutex_unlock(&repository->catalog_lock);
}

static hr_status publish(hr_repository *repository, hr_error *err) {
    const struct timespec moment = {.tv_nsec = 50000};
    hr_served *served = hr_served_create(repository->catalog, repository->default_spec);
    if (served == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the table of models");
    hr_served *before = atomic_exchange(&repository->served, served);
    while (atomic_load(&repository->readers) != 0) nanosleep(&moment, NULL);
    note_published(repository); /* before what was goes: until then a version's status may tell of it */
    hr_served_destroy(before);
    repository->unpublished = false;
    return HR_OK;
}

static bool take_out_unwanted(hr_catalog *catalog) {
    bool any = false;
    for (size_t g = 0; g < catalog->n_groups; g++) {
        const hr_version_group *group = catalog->groups[g];
        for (size_t v = 0; v < group->n_versions; v++) {
            hr_version *version = group->versions[v];
            if (version->loaded.model == NULL || hr_catalog_keeps(catalog, group, version)) continue;
            hr_log(HR_LOG_INFO, "model taken out of service",
                   HR_LOG_STR("model", hr_model_label(version->loaded.model)));
            take_out(version);
            any = true;
        }
    }
    return any;
}

hr_status hr_repository_settle__(hr_repository *repository, hr_error *err) {
    pthread_mutex_lock(&repository->catalog_lock);
    bool moved = hr_catalog_resolve_labels(repository->catalog);
    bool fewer = take_out_unwanted(repository->catalog);
    pthread_mutex_unlock(&repository->catalog_lock);
    if (moved || fewer) repository->unpublished = true;
    return repository->unpublished ? publish(repository, err) : HR_OK;
}

/* ---- The thread ---- */

static void take_messages(hr_repository *repository, uint64_t until_ns) {
    hr_mail *mail = hr_mailbox_take(repository->to_decider, until_ns);
    while (mail != NULL) {
        hr_repository_message *message = (hr_repository_message *)mail;
        mail = mail->next;
        message->handle(repository, message);
    }
}

static void take_turn(hr_repository *repository) {
    hr_error err;
    if (hr_repository_settle__(repository, &err) != HR_OK)
        hr_log(HR_LOG_ERROR, "models cannot be published", HR_LOG_STR("reason", err.message));
    begin_next_load(repository);
}

void *hr_repository_decider__(void *arg) {
    hr_repository *repository = arg;
    const uint64_t poll_ns = (uint64_t)repository->options.poll_ms * 1000000u;
    uint64_t next_look_ns = poll_ns > 0 ? hr_clock_ns() + poll_ns : UINT64_MAX;
    while (!(repository->stopping && repository->job.version == NULL)) {
        const uint64_t retry_ns = repository->unpublished ? hr_clock_ns() + 1000000000u : UINT64_MAX;
        take_messages(repository, retry_ns < next_look_ns ? retry_ns : next_look_ns);
        if (atomic_load(&repository->draining)) {
            next_look_ns = UINT64_MAX;
            continue;
        }
        if (hr_clock_ns() >= next_look_ns) {
            hr_error err;
            hr_repository_scan__(repository, &err); /* which keeps and logs its error */
            next_look_ns = hr_clock_ns() + poll_ns;
        }
        take_turn(repository);
    }
    return NULL;
}
