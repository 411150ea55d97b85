/* Admin's answers: see admin_messages.h. A full arena sticks in the collector, so that the walk over the
 * repository's versions needs no checks. */
#include "service/admin_messages.h"

#include <string.h>

typedef Homerank__V1__VersionStatus version_message;
typedef Homerank__V1__ServedModel model_message;
typedef Homerank__V1__ModelError error_message;
typedef Homerank__V1__Label label_message;

/* A list of pointers in the arena, which grows by doubling. */
typedef struct list {
    void **items; /* (n) */
    size_t n, room;
} list;

typedef struct collector {
    hr_arena *arena;
    const char *name; /* "": every model */
    uint64_t version; /* 0: every version */
    list versions, models, errors, labels;
    const char *last_name; /* of the model seen last; NULL: none yet */
    size_t room;           /* for versions in the last of models */
    bool full;
} collector;

/* Zeroed memory of the arena; NULL where it is full. */
static void *take(collector *c, size_t nbytes) {
    void *memory = hr_arena_calloc(c->arena, 1, nbytes);
    if (memory == NULL) c->full = true;
    return memory;
}

static char *copy(collector *c, const char *text) {
    char *made = hr_arena_strndup(c->arena, text, strlen(text));
    if (made == NULL) c->full = true;
    return made;
}

static void append(collector *c, list *to, void *item) {
    if (to->n == to->room) {
        size_t room = to->room == 0 ? 8 : 2 * to->room;
        void **items = hr_arena_calloc(c->arena, room, sizeof *items);
        if (items == NULL) {
            c->full = true;
            return;
        }
        if (to->n > 0) memcpy(items, to->items, to->n * sizeof *items);
        to->items = items;
        to->room = room;
    }
    to->items[to->n++] = item;
}

/* ---- Parts ---- */

static void add_labels(collector *c, const hr_model_status *model, list *to) {
    for (size_t l = 0; l < model->n_labels && !c->full; l++) {
        const hr_version_label *label = &model->labels[l];
        label_message *message = take(c, sizeof *message);
        if (message == NULL) return;
        homerank__v1__label__init(message);
        message->name = copy(c, label->name);
        message->version = label->version;
        message->served = label->served;
        append(c, to, message);
    }
}

static void add_label_names(collector *c, const hr_model_status *model, version_message *message) {
    list names = {0};
    for (size_t l = 0; l < model->n_labels && !c->full; l++)
        if (model->labels[l].served == message->version) append(c, &names, copy(c, model->labels[l].name));
    message->labels = (char **)names.items;
    message->n_labels = names.n;
}

static Homerank__V1__VersionState state_of(hr_version_state state) {
    switch (state) {
    case HR_VERSION_AVAILABLE: return HOMERANK__V1__VERSION_STATE__VERSION_AVAILABLE;
    case HR_VERSION_LOADING: return HOMERANK__V1__VERSION_STATE__VERSION_LOADING;
    case HR_VERSION_SERVING: return HOMERANK__V1__VERSION_STATE__VERSION_SERVING;
    case HR_VERSION_FAILED: return HOMERANK__V1__VERSION_STATE__VERSION_FAILED;
    case HR_VERSION_UNLOADING: return HOMERANK__V1__VERSION_STATE__VERSION_UNLOADING;
    }
    return HOMERANK__V1__VERSION_STATE__VERSION_UNKNOWN;
}

static void add_version(collector *c, const hr_model_status *model, const hr_version_status *version) {
    version_message *message = take(c, sizeof *message);
    if (message == NULL) return;
    homerank__v1__version_status__init(message);
    message->model = copy(c, model->name);
    message->version = version->version;
    message->state = state_of(version->state);
    message->reason = copy(c, version->reason);
    message->load_ms = version->load_ms;
    message->loaded_unix_ms = version->loaded_unix_ms;
    add_label_names(c, model, message);
    if (version->model != NULL) {
        char how[160];
        hr_engine_describe(hr_model_engine(version->model), how, sizeof how);
        message->backend = copy(c, how);
    }
    append(c, &c->versions, message);
}

/* ---- Walks ---- */

/* Whether this is the first version seen of its model. */
static bool is_new_model(collector *c, const hr_model_status *model) {
    bool is_new = c->last_name == NULL || strcmp(c->last_name, model->name) != 0;
    if (is_new) c->last_name = copy(c, model->name);
    return is_new;
}

static bool is_asked_for(const collector *c, const hr_model_status *model, const hr_version_status *version) {
    if (c->name[0] != '\0' && strcmp(c->name, model->name) != 0) return false;
    return c->version == 0 || c->version == version->version;
}

static void see_status(const hr_model_status *model, const hr_version_status *version, void *arg) {
    collector *c = arg;
    if (c->full || !is_asked_for(c, model, version)) return;
    add_version(c, model, version);
    if (!is_new_model(c, model) || model->error[0] == '\0') return;
    error_message *message = take(c, sizeof *message);
    if (message == NULL) return;
    homerank__v1__model_error__init(message);
    message->model = copy(c, model->name);
    message->reason = copy(c, model->error);
    append(c, &c->errors, message);
}

static void add_model(collector *c, const hr_model_status *model) {
    model_message *message = take(c, sizeof *message);
    if (message == NULL) return;
    homerank__v1__served_model__init(message);
    message->name = copy(c, model->name);
    list labels = {0};
    add_labels(c, model, &labels);
    message->labels = (label_message **)labels.items;
    message->n_labels = labels.n;
    c->room = 0;
    append(c, &c->models, message);
}

static void add_served_version(collector *c, model_message *message, uint64_t version) {
    if (message->n_versions == c->room) {
        size_t room = c->room == 0 ? 4 : 2 * c->room;
        uint64_t *versions = take(c, room * sizeof *versions);
        if (versions == NULL) return;
        if (c->room > 0) memcpy(versions, message->versions, c->room * sizeof *versions);
        message->versions = versions;
        c->room = room;
    }
    message->versions[message->n_versions++] = version;
}

static void see_served(const hr_model_status *model, const hr_version_status *version, void *arg) {
    collector *c = arg;
    if (c->full || version->state != HR_VERSION_SERVING) return;
    if (is_new_model(c, model)) add_model(c, model);
    if (!c->full) add_served_version(c, c->models.items[c->models.n - 1], version->version);
}

static void see_labels(const hr_model_status *model, const hr_version_status *version, void *arg) {
    collector *c = arg;
    if (!c->full && is_asked_for(c, model, version) && is_new_model(c, model))
        add_labels(c, model, &c->labels);
}

/* The repository's own error, which stays with the caller, in error[HR_ERROR_MESSAGE_SIZE]. */
static hr_status walk(hr_repository *repository,
                      void (*see)(const hr_model_status *, const hr_version_status *, void *), collector *c,
                      char *error, hr_error *err) {
    hr_repository_status(repository, see, c, error);
    return c->full ? hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the answer exceeds the call's memory cap")
                   : HR_OK;
}

/* ---- Answers ---- */

hr_status hr_admin_list_models(hr_repository *repository, hr_arena *arena,
                               Homerank__V1__ListModelsResponse *response, hr_error *err) {
    char error[HR_ERROR_MESSAGE_SIZE];
    collector c = {.arena = arena, .name = ""};
    hr_status status = walk(repository, see_served, &c, error, err);
    homerank__v1__list_models_response__init(response);
    response->models = (model_message **)c.models.items;
    response->n_models = c.models.n;
    response->default_model = (char *)hr_repository_default(repository);
    return status;
}

hr_status hr_admin_get_status(hr_repository *repository, const char *name, uint64_t version, hr_arena *arena,
                              Homerank__V1__GetStatusResponse *response, hr_error *err) {
    char error[HR_ERROR_MESSAGE_SIZE];
    collector c = {.arena = arena, .name = name, .version = version};
    hr_status status = walk(repository, see_status, &c, error, err);
    if (status != HR_OK) return status;
    if (c.versions.n == 0 && (name[0] != '\0' || version != 0))
        return hr_error_set(err, HR_NOT_FOUND, "model %s@%llu is not known; version 0 stands for all",
                            hr_quote(name, strlen(name)).text, (unsigned long long)version);
    homerank__v1__get_status_response__init(response);
    response->versions = (version_message **)c.versions.items;
    response->n_versions = c.versions.n;
    response->errors = (error_message **)c.errors.items;
    response->n_errors = c.errors.n;
    response->repository_error = hr_arena_strndup(arena, error, strlen(error));
    if (response->repository_error != NULL) return HR_OK;
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the answer exceeds the call's memory cap");
}

hr_status hr_admin_labels(hr_repository *repository, const char *name, hr_arena *arena,
                          Homerank__V1__SetLabelResponse *response, hr_error *err) {
    char error[HR_ERROR_MESSAGE_SIZE];
    collector c = {.arena = arena, .name = name};
    hr_status status = walk(repository, see_labels, &c, error, err);
    homerank__v1__set_label_response__init(response);
    response->labels = (label_message **)c.labels.items;
    response->n_labels = c.labels.n;
    return status;
}
