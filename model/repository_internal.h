/* The repository's own state and its two threads. Internal to model/.
 *
 * The deciding thread (repository_decide.c) owns the catalog, publishes, and answers calls. The loading
 * thread (repository_load.c) has low priority and does what takes long: it loads a version, and frees models.
 * They, and whoever else has a word for them, talk by mailboxes only: a thread of low priority that held a
 * lock would hold up, while others take its CPU, whoever waits for that lock.
 */
#ifndef HOMERANK_MODEL_REPOSITORY_INTERNAL_H
#define HOMERANK_MODEL_REPOSITORY_INTERNAL_H

#include <pthread.h>

#include "model/catalog.h"
#include "model/served.h"

/* A version being loaded. The deciding thread's, but for the time that the loading thread has it. */
typedef struct hr_load_job {
    hr_repository_message message; /* first */
    hr_version_group *group;       /* borrowed */
    hr_version *version;           /* borrowed; NULL: nothing is being loaded */
    char *dir;                     /* owned */
    atomic_bool cancelled;         /* any thread may set it */
    /* Out. */
    hr_error error;
    hr_loaded_model loaded; /* one reference; no model where error is set */
    hr_version_stamp stamp; /* of the files, before they were read */
} hr_load_job;

struct hr_repository {
    char *root;                    /* owned; NULL: one folder, which never changes, and no threads */
    char *backend, *default_spec;  /* owned; default_spec "": none */
    hr_repository_options options; /* whose texts are the above */

    /* Requests read the table between adding themselves to readers and taking themselves off. A table that
     * was replaced is freed once readers was seen to be 0: whoever still had it had been counted. All are
     * sequentially consistent. Sections are so short that 0 comes soon under any load. */
    _Atomic(hr_served *) served;
    _Alignas(64) atomic_uint readers;

    _Alignas(64) pthread_mutex_t catalog_lock; /* guards catalog and scan_error: see catalog.h */
    hr_catalog *catalog;
    hr_error scan_error; /* of the last look at root; code HR_OK: none */

    hr_load_job job;
    bool unpublished; /* the catalog has changed since the table was made; the deciding thread's */

    bool running; /* the threads are */
    pthread_t decider, loader;
    hr_mailbox *to_decider, *to_loader; /* of hr_repository_message */
    atomic_bool draining;               /* set for good: nothing changes any more */
    bool stopping;                      /* the deciding thread's: to end when nothing is being loaded */
    bool loader_stopping;               /* the loading thread's */
    hr_repository_message drain, stop, stop_loader;
};

/* ---- repository_load.c ---- */

/* Loads, prepares and warms job->version from job->dir, into the job's out fields. The loading thread, or
 * while it does not run the one that opens. */
void hr_repository_load__(hr_repository *repository, hr_load_job *job);

/* The loading thread. */
void *hr_repository_loader__(void *repository);

/* ---- repository_decide.c ---- */

/* Looks at the folders and takes over what they show. */
hr_status hr_repository_scan__(hr_repository *repository, hr_error *err);

/* hr_group_set_labels, to be published. The catalog_lock is held. */
void hr_repository_set_labels__(hr_repository *repository, hr_version_group *group, hr_version_label *labels,
                                size_t n_labels);

/* The catalog learns what became of the job, which is free again; *result says how it went (code HR_OK: it
 * serves, once settled). */
void hr_repository_take_result__(hr_repository *repository, hr_error *result);

/* Loads, on this thread, all that is to be loaded now, and settles; *first is the first failure to load (code
 * HR_OK: none). */
hr_status hr_repository_load_all__(hr_repository *repository, hr_error *first, hr_error *err);

/* Takes out of service what is not to go on, and has requests see what the catalog now serves. Errors:
 * OUT_OF_MEMORY; then they see what they saw before, until the next turn. */
hr_status hr_repository_settle__(hr_repository *repository, hr_error *err);

/* The deciding thread. */
void *hr_repository_decider__(void *repository);

/* ---- repository_calls.c ---- */

/* Takes a submitted call in: does it, or leaves it waiting with its version. The deciding thread. */
void hr_repository_take_call__(hr_repository *repository, hr_repository_message *message);

/* Answers all calls that wait for the version. The catalog_lock is not held. */
void hr_repository_answer__(hr_version *version, const hr_error *error);

#endif
