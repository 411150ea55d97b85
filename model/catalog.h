/* What a repository knows of its models and versions, and what its policy makes of that: which to load next,
 * which to keep. Internal to model/.
 *
 * Thread rule: the deciding thread alone changes a catalog, holding the repository's catalog_lock while it
 * does; others hold the lock to read it.
 */
#ifndef HOMERANK_MODEL_CATALOG_H
#define HOMERANK_MODEL_CATALOG_H

#include "model/folders.h"
#include "model/repository.h"

/* A version's model, once it is loaded. */
typedef struct hr_loaded_model {
    hr_model *model; /* NULL: none; then the rest is 0 */
    uint64_t load_ms, loaded_unix_ms;
} hr_loaded_model;

/* A version that is on disk, or was and is still of use. */
typedef struct hr_version {
    uint64_t version;
    hr_version_stamp seen; /* as at the last look */
    bool on_disk;          /* at the last look */
    bool looked_at;        /* once at least */
    bool settled;          /* the files were the same at two looks: nobody is writing them */
    bool kept;             /* asked for by a call, against the policy */
    bool held;             /* unloaded by a call: not for the policy to load until the files change */
    bool loading;

    hr_loaded_model loaded;  /* what is to serve; one reference */
    hr_version_stamp files;  /* of loaded */
    hr_loaded_model serving; /* what requests see: that, or what was before it was published; borrowed */

    hr_error failure;        /* of the last attempt; code HR_OK: it succeeded, or there was none */
    hr_version_stamp failed; /* the files of that attempt */
    uint32_t n_failures;     /* with these files */
    uint64_t retry_ns;       /* not before; UINT64_MAX: when the files change */

    uint32_t n_retired;        /* models of this version taken out of service and not yet freed */
    hr_repository_call *calls; /* that wait for it to be loaded; linked by their mail */
} hr_version;

typedef struct hr_version_group {
    char *name;
    hr_version **versions; /* (n_versions) newest first */
    size_t n_versions;
    hr_version_label *labels; /* (n_labels) */
    size_t n_labels;
    hr_file_stamp labels_stamp; /* of the labels.json last read */
    hr_error labels_error;      /* code HR_OK: it could be read */
    hr_error folder_error;      /* code HR_OK: the folder could be read */
} hr_version_group;

typedef struct hr_catalog {
    hr_version_group **groups; /* (n_groups) by name */
    size_t n_groups;
    hr_version_policy policy;
    char **chosen; /* (n_chosen) "name@version"; HR_POLICY_SPECIFIC */
    size_t n_chosen;
} hr_catalog;

/* versions as in hr_repository_options. Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. */
hr_status hr_catalog_create(hr_version_policy policy, const char *const *versions, size_t n_versions,
                            hr_catalog **catalog, hr_error *err);

/* Drops its models. NULL is allowed. */
void hr_catalog_destroy(hr_catalog *catalog);

hr_version_group *hr_catalog_find(const hr_catalog *catalog, const char *name); /* NULL: there is none */
hr_version *hr_group_find(const hr_version_group *group, uint64_t version);     /* NULL: there is none */

/* The same, made where there is none; NULL when out of memory. */
hr_version_group *hr_catalog_add(hr_catalog *catalog, const char *name);
hr_version *hr_group_add(hr_version_group *group, uint64_t version);

/* Takes over what a look at the folders found. Labels are the caller's. What is gone from disk and of no use
 * any more is forgotten. Errors: OUT_OF_MEMORY, having taken over a part. */
hr_status hr_catalog_merge(hr_catalog *catalog, const hr_folders *folders, hr_error *err);

/* Replaces the labels (owned, (n_labels)); each goes on resolving to what it did until resolved anew. */
void hr_group_set_labels(hr_version_group *group, hr_version_label *labels, size_t n_labels);

/* Points every label at its version where that serves, at none where what it pointed at does no more. Whether
 * any has changed. */
bool hr_catalog_resolve_labels(hr_catalog *catalog);

/* ---- Policy ---- */

/* Something to load: asked for, or wanted by a label or by the policy; NULL: nothing now. settled: only files
 * that have settled, but for those asked for. */
typedef struct hr_load_choice {
    hr_version_group *group;
    hr_version *version;
} hr_load_choice;
hr_load_choice hr_catalog_next_load(const hr_catalog *catalog, bool settled, uint64_t now_ns);

/* Whether a version that serves is to go on. */
bool hr_catalog_keeps(const hr_catalog *catalog, const hr_version_group *group, const hr_version *version);

/* The versions of the group that are loaded: once published, that serve. */
size_t hr_group_n_loaded(const hr_version_group *group);

#endif
