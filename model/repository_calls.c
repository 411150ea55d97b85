/* Load, unload, set a label: see hr_repository_action. All runs on the deciding thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/labels.h"
#include "model/repository_internal.h"
#include "model/version.h"

static void answer(hr_repository_call *call, const hr_error *error) {
    if (error->code == HR_OK)
        call->error.code = HR_OK;
    else
        call->error = *error;
    call->done(call);
}

/* What is wrong with a version is no mistake in the call. */
static hr_error as_answer(const hr_error *error) {
    hr_error said = *error;
    if (said.code == HR_INVALID_ARGUMENT || said.code == HR_IO || said.code == HR_UNIMPLEMENTED ||
        said.code == HR_DEVICE || said.code == HR_INTERNAL)
        said.code = HR_FAILED_PRECONDITION;
    return said;
}

void hr_repository_answer__(hr_version *version, const hr_error *error) {
    hr_repository_call *call = version->calls;
    const hr_error said = as_answer(error);
    version->calls = NULL;
    while (call != NULL) {
        hr_repository_call *next = (hr_repository_call *)call->message.mail.next;
        answer(call, &said);
        call = next;
    }
}

static hr_status not_found(const hr_repository_call *call, const char *what, hr_error *err) {
    char version[24] = "";
    if (call->version > 0) snprintf(version, sizeof version, "@%llu", (unsigned long long)call->version);
    return hr_error_set(err, HR_NOT_FOUND, "model %s%s %s", hr_quote(call->name, strlen(call->name)).text,
                        version, what);
}

/* ---- Load ---- */

static hr_version *find_on_disk(const hr_version_group *group, uint64_t version) {
    for (size_t v = 0; v < group->n_versions; v++) {
        hr_version *found = group->versions[v];
        if (found->on_disk && (version == 0 || found->version == version)) return found;
    }
    return NULL;
}

/* *waits: the call is answered when its version is loaded. */
static hr_status load(hr_repository *repository, hr_repository_call *call, bool *waits, hr_error *err) {
    hr_status status = hr_repository_scan__(repository, err);
    if (status != HR_OK) return status;
    const hr_version_group *group = hr_catalog_find(repository->catalog, call->name);
    hr_version *version = group == NULL ? NULL : find_on_disk(group, call->version);
    if (version == NULL) return not_found(call, "is not in the repository", err);
    call->resolved = version->version;
    version->held = false;
    if (version->loaded.model != NULL && !version->loading &&
        hr_version_stamps_equal(&version->files, &version->seen))
        return HR_OK;
    call->message.mail.next = (hr_mail *)version->calls;
    version->calls = call;
    *waits = true;
    return HR_OK;
}

/* ---- Unload ---- */

/* Whether the default model's spec is this model's name, with a version or a label or alone. */
static bool is_default(const hr_repository *repository, const hr_version_group *group) {
    size_t length = strlen(group->name);
    const char *spec = repository->default_spec;
    return strncmp(spec, group->name, length) == 0 && strchr("@:", spec[length]) != NULL; /* or its NUL */
}

static size_t n_served(const hr_catalog *catalog) {
    size_t n = 0;
    for (size_t g = 0; g < catalog->n_groups; g++) n += hr_group_n_loaded(catalog->groups[g]);
    return n;
}

static bool is_meant(const hr_repository_call *call, const hr_version *version) {
    return call->version == 0 || call->version == version->version;
}

/* Whether nothing names the version itself. */
static hr_status check_unnamed(const hr_repository *repository, const hr_version_group *group,
                               const hr_version *version, hr_error *err) {
    const char *spec = repository->default_spec;
    unsigned long long number = version->version;
    for (size_t l = 0; l < group->n_labels; l++) {
        const hr_version_label *label = &group->labels[l];
        if (label->version != version->version && label->served != version->version) continue;
        return hr_error_set(err, HR_FAILED_PRECONDITION,
                            "%s@%llu is labelled %s: move the label to another version first", group->name,
                            number, label->name);
    }
    uint64_t wanted;
    if (is_default(repository, group) && spec[strlen(group->name)] == '@' &&
        hr_version_parse(spec + strlen(group->name) + 1, &wanted) && wanted == version->version)
        return hr_error_set(err, HR_FAILED_PRECONDITION, "the default model is %s", spec);
    return HR_OK;
}

/* Whether what the call means serves or is being loaded, and may go. */
static hr_status check_unload(const hr_repository *repository, const hr_repository_call *call,
                              const hr_version_group *group, hr_error *err) {
    size_t n_leaving = 0, n_loading = 0;
    for (size_t v = 0; v < group->n_versions; v++) {
        const hr_version *version = group->versions[v];
        if (!is_meant(call, version)) continue;
        hr_status status = check_unnamed(repository, group, version, err);
        if (status != HR_OK) return status;
        n_leaving += version->loaded.model != NULL;
        n_loading += version->loading;
    }
    if (n_leaving == 0 && n_loading == 0) return not_found(call, "is not served", err);
    if (n_leaving == 0 || n_leaving < hr_group_n_loaded(group)) return HR_OK;
    if (is_default(repository, group))
        return hr_error_set(err, HR_FAILED_PRECONDITION,
                            "no version of the default model %s would be left: load another first",
                            group->name);
    if (n_leaving == n_served(repository->catalog))
        return hr_error_set(err, HR_FAILED_PRECONDITION, "no model would be left: load another first");
    return HR_OK;
}

static hr_status unload(hr_repository *repository, const hr_repository_call *call, hr_error *err) {
    hr_version_group *group = hr_catalog_find(repository->catalog, call->name);
    if (group == NULL) return not_found(call, "is not served", err);
    hr_status status = check_unload(repository, call, group, err);
    if (status != HR_OK) return status;
    pthread_mutex_lock(&repository->catalog_lock);
    for (size_t v = 0; v < group->n_versions; v++) {
        hr_version *version = group->versions[v];
        if (!is_meant(call, version)) continue;
        version->held = true;
        version->kept = false;
        if (version->loading) atomic_store(&repository->job.cancelled, true);
    }
    pthread_mutex_unlock(&repository->catalog_lock);
    return hr_repository_settle__(repository, err);
}

/* ---- Labels ---- */

static hr_status check_label(const hr_repository *repository, const hr_repository_call *call,
                             const hr_version_group *group, hr_error *err) {
    if (group->labels_error.code != HR_OK)
        return hr_error_set(err, HR_FAILED_PRECONDITION, "mend or remove the file first: %s",
                            group->labels_error.message);
    if (call->version == 0) {
        const char *spec = repository->default_spec;
        size_t length = strlen(group->name);
        if (is_default(repository, group) && spec[length] == ':' &&
            strcmp(spec + length + 1, call->label) == 0)
            return hr_error_set(err, HR_FAILED_PRECONDITION, "the default model is %s: it needs the label",
                                spec);
        return HR_OK;
    }
    const hr_version *version = hr_group_find(group, call->version);
    if (version == NULL || version->loaded.model == NULL)
        return hr_error_set(err, HR_FAILED_PRECONDITION, "%s@%llu is not served: load it first", group->name,
                            (unsigned long long)call->version);
    return HR_OK;
}

/* The group's labels as the call wants them: *labels (n_labels) is the caller's. */
static hr_status changed_labels(const hr_repository_call *call, const hr_version_group *group,
                                hr_version_label **labels, size_t *n_labels, hr_error *err) {
    *n_labels = 0;
    *labels = calloc(group->n_labels + 1, sizeof **labels);
    if (*labels == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    bool found = false;
    for (size_t l = 0; l < group->n_labels; l++) {
        hr_version_label label = group->labels[l];
        if (strcmp(label.name, call->label) == 0) {
            found = true;
            if (call->version == 0) continue;
            label.version = call->version;
        }
        (*labels)[(*n_labels)++] = label;
    }
    if (!found && call->version == 0)
        return hr_error_set(err, HR_NOT_FOUND, "model %s has no label %s", group->name, call->label);
    if (found) return HR_OK;
    if (*n_labels == HR_LABELS_MAX)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                            "model %s has %d labels already, the most it may have", group->name,
                            HR_LABELS_MAX);
    hr_version_label *added = &(*labels)[(*n_labels)++];
    added->version = call->version;
    snprintf(added->name, sizeof added->name, "%s", call->label);
    return HR_OK;
}

/* Writes the labels into the file, then takes them over; they are the group's or freed. */
static hr_status write_labels(hr_repository *repository, hr_version_group *group, hr_version_label *labels,
                              size_t n_labels, hr_error *err) {
    char *path = NULL;
    hr_status status = HR_OK;
    if (asprintf(&path, "%s/%s/labels.json", repository->root, group->name) < 0) {
        path = NULL;
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    }
    if (status == HR_OK) status = hr_labels_write(path, labels, n_labels, err);
    if (status == HR_OK) {
        pthread_mutex_lock(&repository->catalog_lock);
        hr_repository_set_labels__(repository, group, labels, n_labels);
        group->labels_stamp = hr_file_stamp_of(path);
        pthread_mutex_unlock(&repository->catalog_lock);
    } else {
        free(labels);
    }
    free(path);
    return status;
}

static hr_status set_label(hr_repository *repository, const hr_repository_call *call, hr_error *err) {
    if (!hr_label_is_name(call->label) || call->version > INT64_MAX)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "expected a label of letters, digits, _ and - (at most %d) and a version below "
                            "2^63, found %s and %llu",
                            HR_LABEL_SIZE - 1, hr_quote(call->label, strlen(call->label)).text,
                            (unsigned long long)call->version);
    hr_status status = hr_repository_scan__(repository, err);
    if (status != HR_OK) return status;
    hr_version_group *group = hr_catalog_find(repository->catalog, call->name);
    if (group == NULL) return not_found(call, "is not in the repository", err);
    hr_version_label *labels = NULL;
    size_t n_labels = 0;
    status = check_label(repository, call, group, err);
    if (status == HR_OK) status = changed_labels(call, group, &labels, &n_labels, err);
    if (status != HR_OK) {
        free(labels);
        return status;
    }
    status = write_labels(repository, group, labels, n_labels, err);
    if (status != HR_OK) return status;
    hr_log(HR_LOG_INFO, call->version > 0 ? "label set" : "label removed", HR_LOG_STR("model", group->name),
           HR_LOG_STR("label", call->label), HR_LOG_INT("version", call->version));
    return hr_repository_settle__(repository, err);
}

/* ---- All ---- */

void hr_repository_take_call__(hr_repository *repository, hr_repository_message *message) {
    hr_repository_call *call = (hr_repository_call *)message;
    hr_error error = {.code = HR_OK};
    bool waits = false;
    if (atomic_load(&repository->draining)) {
        hr_error_set(&error, HR_UNAVAILABLE, "the server is shutting down");
        answer(call, &error);
        return;
    }
    /* What could not be published yet is no ground to decide on. */
    hr_status status = hr_repository_settle__(repository, &error);
    if (status != HR_OK) {
        answer(call, &error);
        return;
    }
    switch (call->action) {
    case HR_REPOSITORY_LOAD: status = load(repository, call, &waits, &error); break;
    case HR_REPOSITORY_UNLOAD: status = unload(repository, call, &error); break;
    case HR_REPOSITORY_SET_LABEL: status = set_label(repository, call, &error); break;
    }
    if (status == HR_OK) error.code = HR_OK;
    if (!waits) answer(call, &error);
}
