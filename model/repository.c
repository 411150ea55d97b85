/* The model repository: see repository.h. After opening it never changes, so acquiring takes no lock. */
#include "model/repository.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/utf8.h"
#include "model/version.h"

enum { MAX_NAME_NBYTES = 255 };

struct hr_repository {
    hr_model **models; /* (n_models) owned references, sorted by name */
    size_t n_models;
    hr_model *default_model; /* one of models, or NULL */
};

/* ---- Folders ---- */

/* The names in a folder, or its versions; grown as they come. Owned. */
typedef struct name_list {
    char **names;
    size_t n;
} name_list;

static void name_list_clear(name_list *list) {
    for (size_t i = 0; i < list->n; i++) free(list->names[i]);
    free(list->names);
    *list = (name_list){0};
}

static hr_status name_list_add(name_list *list, const char *name, hr_error *err) {
    char **names = realloc(list->names, (list->n + 1) * sizeof *names);
    if (names != NULL) {
        list->names = names;
        list->names[list->n] = strdup(name);
        if (list->names[list->n] != NULL) {
            list->n++;
            return HR_OK;
        }
    }
    return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Newest first. */
static int compare_versions(const void *a, const void *b) {
    uint64_t x = 0, y = 0;
    hr_version_parse(*(char *const *)a, &x);
    hr_version_parse(*(char *const *)b, &y);
    return x > y ? -1 : x < y;
}

/* A folder that a model's versions lie in. One whose name `name@version` and `name:label` could not tell
 * apart, or that an answer could not carry, is none. */
static bool is_model_name(const char *name) {
    if (name[0] == '.' || strpbrk(name, "@:") != NULL) return false;
    return hr_utf8_valid(name, strlen(name));
}

static bool is_version_name(const char *name) {
    uint64_t version;
    return hr_version_parse(name, &version);
}

/* The sub-folders of dir whose names are wanted, sorted; every other entry is ignored. */
static hr_status list_folders(const char *dir, bool (*wanted)(const char *),
                              int (*compare)(const void *, const void *), name_list *list, hr_error *err) {
    DIR *opened = opendir(dir);
    if (opened == NULL)
        return hr_error_set(err, HR_IO, "cannot open folder %s: %s", hr_quote(dir, strlen(dir)).text,
                            strerror(errno));
    hr_status status = HR_OK;
    const struct dirent *entry;
    while (status == HR_OK && (entry = readdir(opened)) != NULL) {
        struct stat st;
        if (!wanted(entry->d_name)) continue;
        if (fstatat(dirfd(opened), entry->d_name, &st, 0) != 0 || !S_ISDIR(st.st_mode)) continue;
        status = name_list_add(list, entry->d_name, err);
    }
    closedir(opened);
    if (status == HR_OK && list->n > 1) qsort(list->names, list->n, sizeof *list->names, compare);
    return status;
}

/* ---- Loading ---- */

static hr_status load_version(const char *dir, const char *name, uint64_t version,
                              const hr_repository_options *options, hr_model **model, hr_error *err) {
    hr_status status = hr_model_load(dir, name, version, &options->model, model, err);
    if (status != HR_OK) return status;
    if (options->prepare != NULL) status = options->prepare(*model, dir, options->prepare_arg, err);
    if (status != HR_OK) {
        hr_error_prefix(err, "model %s", hr_model_label(*model));
        hr_model_unref(*model);
        *model = NULL;
        return status;
    }
    char how[160];
    uint64_t embeddings, network = hr_model_parameters(*model, &embeddings);
    hr_engine_describe(hr_model_engine(*model), how, sizeof how);
    hr_log(HR_LOG_INFO, "model loaded", HR_LOG_STR("model", hr_model_label(*model)),
           HR_LOG_STR("backend", how), HR_LOG_INT("network_parameters", network),
           HR_LOG_INT("embedding_parameters", embeddings));
    return HR_OK;
}

static hr_status repository_add(hr_repository *repository, hr_model *model, hr_error *err) {
    hr_model **models = realloc(repository->models, (repository->n_models + 1) * sizeof(hr_model *));
    if (models == NULL) {
        hr_model_unref(model);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    }
    repository->models = models;
    repository->models[repository->n_models++] = model;
    return HR_OK;
}

/* Loads the newest version of dir = ROOT/<name> that loads. None is no error: *first keeps the first reason.
 */
static hr_status load_latest(hr_repository *repository, const char *dir, const char *name,
                             const hr_repository_options *options, hr_error *first, hr_error *err) {
    name_list versions = {0};
    hr_status status = list_folders(dir, is_version_name, compare_versions, &versions, err);
    for (size_t i = 0; status == HR_OK && i < versions.n; i++) {
        char *path;
        uint64_t version = 0;
        hr_model *model;
        hr_error why;
        hr_version_parse(versions.names[i], &version);
        if (asprintf(&path, "%s/%s", dir, versions.names[i]) < 0) {
            status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
            break;
        }
        hr_status loaded = load_version(path, name, version, options, &model, &why);
        free(path);
        if (loaded == HR_OK) {
            status = repository_add(repository, model, err);
            break;
        }
        hr_log(HR_LOG_ERROR, "model version refused", HR_LOG_STR("model", name),
               HR_LOG_INT("version", version), HR_LOG_STR("reason", why.message));
        if (first->code == HR_OK) *first = why;
    }
    name_list_clear(&versions);
    return status;
}

static hr_status load_all(hr_repository *repository, const char *root, const hr_repository_options *options,
                          hr_error *first, hr_error *err) {
    name_list names = {0};
    hr_status status = list_folders(root, is_model_name, compare_names, &names, err);
    for (size_t i = 0; status == HR_OK && i < names.n; i++) {
        char *dir;
        if (asprintf(&dir, "%s/%s", root, names.names[i]) < 0) {
            status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
            break;
        }
        status = load_latest(repository, dir, names.names[i], options, first, err);
        free(dir);
    }
    name_list_clear(&names);
    return status;
}

/* default_model is resolved once; requests without a model then get it. */
static hr_status set_default(hr_repository *repository, const char *default_model, const hr_error *first,
                             hr_error *err) {
    if (default_model == NULL || default_model[0] == '\0') return HR_OK;
    hr_model *model;
    hr_error why;
    if (hr_repository_acquire(repository, default_model, &model, &why) != HR_OK) {
        if (first->code != HR_OK) why = *first; /* that is probably why */
        return hr_error_set(err, HR_NOT_FOUND, "default model %s: %s",
                            hr_quote(default_model, strlen(default_model)).text, why.message);
    }
    repository->default_model = model;
    hr_model_unref(model); /* models holds it */
    return HR_OK;
}

hr_status hr_repository_open(const char *root, const hr_repository_options *options,
                             hr_repository **repository, hr_error *err) {
    *repository = NULL;
    hr_repository *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    hr_error first = {.code = HR_OK};
    hr_status status = load_all(opened, root, options, &first, err);
    if (status == HR_OK && opened->n_models == 0) {
        status = hr_error_set(err, HR_NOT_FOUND, "%s",
                              first.code != HR_OK
                                  ? first.message
                                  : "expected ROOT/<model name>/<version>/config.json, found no such folder");
        hr_error_prefix(err, "no model could be loaded from %s", hr_quote(root, strlen(root)).text);
    }
    if (status == HR_OK) status = set_default(opened, options->default_model, &first, err);
    if (status != HR_OK) {
        hr_repository_close(opened);
        return status;
    }
    *repository = opened;
    return HR_OK;
}

hr_status hr_repository_open_folder(const char *dir, const hr_repository_options *options,
                                    hr_repository **repository, hr_error *err) {
    *repository = NULL;
    char name[MAX_NAME_NBYTES + 1];
    uint64_t version;
    hr_model *model;
    hr_status status = hr_model_identify(dir, name, sizeof name, &version, err);
    if (status == HR_OK) status = load_version(dir, name, version, options, &model, err);
    if (status != HR_OK) return status;
    hr_repository *opened = calloc(1, sizeof *opened);
    if (opened == NULL) {
        hr_model_unref(model);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    }
    status = repository_add(opened, model, err);
    if (status != HR_OK) {
        hr_repository_close(opened);
        return status;
    }
    *repository = opened;
    return HR_OK;
}

void hr_repository_close(hr_repository *repository) {
    if (repository == NULL) return;
    for (size_t i = 0; i < repository->n_models; i++) hr_model_unref(repository->models[i]);
    free(repository->models);
    free(repository);
}

/* ---- Serving ---- */

/* The model of that name or label. */
static hr_model *find_model(const hr_repository *repository, const char *text) {
    for (size_t i = 0; i < repository->n_models; i++) {
        hr_model *model = repository->models[i];
        if (strcmp(hr_model_name(model), text) == 0 || strcmp(hr_model_label(model), text) == 0) return model;
    }
    return NULL;
}

/* The model whose name is the first nbytes of text. */
static hr_model *find_name(const hr_repository *repository, const char *text, size_t nbytes) {
    for (size_t i = 0; i < repository->n_models; i++) {
        const char *name = hr_model_name(repository->models[i]);
        if (strlen(name) == nbytes && memcmp(name, text, nbytes) == 0) return repository->models[i];
    }
    return NULL;
}

static hr_status acquire_default(const hr_repository *repository, hr_model **model, hr_error *err) {
    hr_model *found = repository->default_model;
    if (found == NULL && repository->n_models == 1) found = repository->models[0];
    if (found == NULL) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "model: expected a name, since %zu models are served and none is the default",
                            repository->n_models);
    }
    *model = hr_model_ref(found);
    return HR_OK;
}

hr_status hr_repository_acquire(hr_repository *repository, const char *spec, hr_model **model,
                                hr_error *err) {
    *model = NULL;
    if (spec[0] == '\0') return acquire_default(repository, model, err);
    hr_quoted shown = hr_quote(spec, strlen(spec));
    /* First as a whole: a plain folder may bear any name, with @ or : in it too. */
    hr_model *found = find_model(repository, spec);
    if (found != NULL) {
        *model = hr_model_ref(found);
        return HR_OK;
    }
    const char *at = strpbrk(spec, "@:");
    if (at == NULL) return hr_error_set(err, HR_NOT_FOUND, "model %s is not served", shown.text);
    uint64_t version = 0;
    if (at == spec || at[1] == '\0' || (*at == '@' && !hr_version_parse(at + 1, &version))) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "model: expected name, name@version or name:label, found %s", shown.text);
    }
    found = find_name(repository, spec, (size_t)(at - spec));
    if (found == NULL) return hr_error_set(err, HR_NOT_FOUND, "model %s is not served", shown.text);
    if (*at == ':') return hr_error_set(err, HR_NOT_FOUND, "model %s: there is no such label", shown.text);
    return hr_error_set(err, HR_NOT_FOUND, "model %s is not served, version %llu is", shown.text,
                        (unsigned long long)hr_model_version(found));
}

void hr_repository_visit(hr_repository *repository, void (*visit)(const hr_model *model, void *arg),
                         void *arg) {
    for (size_t i = 0; i < repository->n_models; i++) {
        hr_model *model = hr_model_ref(repository->models[i]);
        visit(model, arg);
        hr_model_unref(model);
    }
}
