/* The folders of a model repository as they lie on disk: models, versions, and what tells whether their files
 * have changed. Internal to model/. */
#ifndef HOMERANK_MODEL_FOLDERS_H
#define HOMERANK_MODEL_FOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* What tells a file from another, or from itself before somebody wrote to it; all 0 where there is none. */
typedef struct hr_file_stamp {
    uint64_t inode, nbytes, modified_ns, changed_ns;
} hr_file_stamp;

/* The files of a version: config.json, model.safetensors, verify.jsonl. */
enum { HR_VERSION_N_FILES = 3 };
typedef struct hr_version_stamp {
    hr_file_stamp files[HR_VERSION_N_FILES];
} hr_version_stamp;

typedef struct hr_version_folder {
    uint64_t version;
    hr_version_stamp stamp;
} hr_version_folder;

typedef struct hr_model_folder {
    char *name;
    hr_error error;              /* code HR_OK: the rest is known */
    hr_version_folder *versions; /* (n_versions) newest first */
    size_t n_versions;
    hr_file_stamp labels; /* labels.json */
} hr_model_folder;

typedef struct hr_folders {
    hr_model_folder *models; /* (n_models) sorted by name */
    size_t n_models;
} hr_folders;

/* Looks at root. A model whose folder cannot be read has an error of its own. Errors: IO (root),
 * OUT_OF_MEMORY; then *folders is empty. */
hr_status hr_folders_read(const char *root, hr_folders *folders, hr_error *err);
void hr_folders_clear(hr_folders *folders);

/* The stamps of the file or of the version's folder at path. */
hr_file_stamp hr_file_stamp_of(const char *path);
hr_version_stamp hr_version_stamp_of(const char *dir);

bool hr_file_stamps_equal(const hr_file_stamp *a, const hr_file_stamp *b);
bool hr_version_stamps_equal(const hr_version_stamp *a, const hr_version_stamp *b);

#endif
