/* The model repository ROOT/<model name>/<version>/: which models are served, and their change while they are
 * (MODEL.md 1).
 *
 * Opening loads what is to be served, on the caller's thread. From then on two threads of the repository keep
 * it so: one decides (it looks at the folders, takes the calls below, publishes), one of low priority loads
 * and frees models. A version is published when it has loaded, was prepared and has run once; the one that it
 * replaces finishes the requests under way and is freed when the last has dropped its reference. A version
 * that fails leaves what is served as it was, keeps its reason, and is tried again when its files change.
 *
 * ROOT/<model name>/labels.json, {"stable": 2, "canary": 3}, gives versions labels. A label moves to another
 * version when that one is served.
 *
 * Thread rule: any thread may acquire, visit, ask for the status and submit calls.
 */
#ifndef HOMERANK_MODEL_REPOSITORY_H
#define HOMERANK_MODEL_REPOSITORY_H

#include "base/mailbox.h"
#include "base/status.h"
#include "model/model.h"

typedef struct hr_repository hr_repository;

/* Which versions are served. Besides them: those that a label names, and those that HR_REPOSITORY_LOAD asked
 * for. */
typedef enum hr_version_policy {
    HR_POLICY_LATEST,  /* of each model the newest version that loads */
    HR_POLICY_ALL,     /* every version that loads */
    HR_POLICY_SPECIFIC /* hr_repository_options.versions */
} hr_version_policy;

typedef struct hr_repository_options {
    hr_model_options model;    /* backend is copied; cancelled must be NULL */
    const char *default_model; /* name, name@version or name:label; NULL or "": none. Copied */
    hr_version_policy policy;
    const char *const *versions; /* (n_versions) "name@version"; HR_POLICY_SPECIFIC only. Copied */
    size_t n_versions;
    uint32_t poll_ms;   /* how often the folders are looked at; 0: never */
    uint32_t warm_rows; /* of the batch that each worker of a new version runs before it is published */
    /* (optional) Called with every loaded version before it is published; a failure refuses the version.
     * The service attaches the schema's feature encoder and checks verify.jsonl here: model/ knows neither.
     * Any thread, one at a time. */
    hr_status (*prepare)(hr_model *model, const char *dir, void *arg, hr_error *err);
    void *prepare_arg;
} hr_repository_options;

/* Scans root, loads by the policy and starts the threads; a version that fails is logged. Errors:
 * INVALID_ARGUMENT (versions), IO (root), NOT_FOUND (no model could be loaded, or default_model is none of
 * them; the first failure's reason is in the message), OUT_OF_MEMORY, RESOURCE_EXHAUSTED (threads). */
hr_status hr_repository_open(const char *root, const hr_repository_options *options,
                             hr_repository **repository, hr_error *err);

/* A repository of one model from its plain folder (hr_model_identify), which never changes, for offline
 * scoring. Errors: those of hr_model_load and of prepare. */
hr_status hr_repository_open_folder(const char *dir, const hr_repository_options *options,
                                    hr_repository **repository, hr_error *err);

/* Ends a load under way and all changes: calls that wait, and all to come, are answered UNAVAILABLE. Models
 * are served as before. Any number of times. */
void hr_repository_drain(hr_repository *repository);

/* Drains, ends the threads and frees everything. Every acquired reference must have been dropped. NULL is
 * allowed. */
void hr_repository_close(hr_repository *repository);

/* ---- What is served ---- */

/* Resolves RankRequest.model ("", "name", "name@version", "name:label") to a model with a reference for the
 * caller; a name alone is its newest version. Takes no lock. Errors: NOT_FOUND, INVALID_ARGUMENT (not of that
 * form; "" with several models and no default), UNAVAILABLE ("" with no model). */
hr_status hr_repository_acquire(hr_repository *repository, const char *spec, hr_model **model, hr_error *err);

/* Calls visit for every served model, by name, newest version first. Changes wait for it: it should be short.
 */
void hr_repository_visit(hr_repository *repository, void (*visit)(const hr_model *model, void *arg),
                         void *arg);

/* What "" resolves to, as it was given: name, name@version or name:label; "": not said. */
const char *hr_repository_default(const hr_repository *repository);

/* ---- Status ---- */

/* X(name, text) */
#define HR_VERSION_STATE_MAP(X)                                                                              \
    X(AVAILABLE, "available") /* on disk; not asked for */                                                   \
    X(LOADING, "loading")                                                                                    \
    X(SERVING, "serving")                                                                                    \
    X(FAILED, "failed")       /* see reason */                                                               \
    X(UNLOADING, "unloading") /* requests under way still use it, or it is being freed */

typedef enum hr_version_state {
#define HR_VERSION_STATE_ENUM(name, text) HR_VERSION_##name,
    HR_VERSION_STATE_MAP(HR_VERSION_STATE_ENUM)
#undef HR_VERSION_STATE_ENUM
} hr_version_state;

const char *hr_version_state_text(hr_version_state state); /* static */

enum { HR_LABEL_SIZE = 64 };

typedef struct hr_version_label {
    char name[HR_LABEL_SIZE];
    uint64_t version; /* as labels.json says */
    uint64_t served;  /* what it resolves to: another until `version` is served; 0: nothing */
} hr_version_label;

typedef struct hr_model_status {
    const char *name;
    const hr_version_label *labels; /* (n_labels) */
    size_t n_labels;
    const char *error; /* why its folder or labels.json cannot be read; "": it can */
} hr_model_status;

typedef struct hr_version_status {
    uint64_t version;
    hr_version_state state;
    const char *reason;      /* why the last attempt to load it failed; "": it did not, or there was none */
    const hr_model *model;   /* SERVING; else NULL */
    uint64_t load_ms;        /* how long loading, preparing and warming took; SERVING */
    uint64_t loaded_unix_ms; /* when that ended; SERVING */
} hr_version_status;

/* Calls visit for every version of every model, by name, newest version first. All is borrowed for the call,
 * which must not ask the repository anything. Returns the error of the last look at root, "" where it
 * succeeded, in error[HR_ERROR_MESSAGE_SIZE]. */
void hr_repository_status(hr_repository *repository,
                          void (*visit)(const hr_model_status *model, const hr_version_status *version,
                                        void *arg),
                          void *arg, char error[HR_ERROR_MESSAGE_SIZE]);

/* ---- Changes ---- */

typedef enum hr_repository_action {
    /* Loads a version, or loads it again where its files have changed since; done when it is served or has
     * failed. One that the policy alone would not serve stays until it is unloaded. version 0: the newest on
     * disk. Errors: NOT_FOUND, FAILED_PRECONDITION (it cannot be served: the reason), OUT_OF_MEMORY,
     * CANCELLED (unloaded meanwhile). */
    HR_REPOSITORY_LOAD,
    /* Takes a version out of service and does not load it again before it is asked for or its files change.
     * version 0: every version of the model. Errors: NOT_FOUND (not served), FAILED_PRECONDITION (a label
     * names it; it is the last of the default model, or of all). */
    HR_REPOSITORY_UNLOAD,
    /* Writes label -> version into labels.json; version 0 removes the label. Errors: INVALID_ARGUMENT (the
     * label), NOT_FOUND (model; label to remove), FAILED_PRECONDITION (the version is not served; the file
     * cannot be read; the default model is by this label), IO. */
    HR_REPOSITORY_SET_LABEL
} hr_repository_action;

/* What the repository's threads are told; their own. */
typedef struct hr_repository_message hr_repository_message;
struct hr_repository_message {
    hr_mail mail; /* first */
    void (*handle)(hr_repository *repository, hr_repository_message *message);
};

typedef struct hr_repository_call hr_repository_call;
struct hr_repository_call {
    hr_repository_message message; /* first; the repository's own */
    /* In; the caller's, unchanged until done. */
    hr_repository_action action;
    const char *name;
    uint64_t version;
    const char *label; /* SET_LABEL */
    /* Once per call: on the repository's thread, or on the submitter's where it is refused at once. */
    void (*done)(hr_repository_call *call);
    void *arg;
    /* Out. */
    hr_error error;    /* code HR_OK: done as asked */
    uint64_t resolved; /* the version that LOAD with version 0 found */
};

/* The call is the repository's until done. Errors besides the action's own: UNAVAILABLE (drained), and
 * UNIMPLEMENTED in a repository of one folder. */
void hr_repository_submit(hr_repository *repository, hr_repository_call *call);

#endif
