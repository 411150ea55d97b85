/* Reads the folders of a repository: see folders.h. Entries that are no folders of models or versions are
 * ignored; one that vanishes meanwhile was never there; any other failure is told, so that nobody takes what
 * could not be read for deleted. */
#include "model/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"
#include "model/version.h"

static const char *const version_files[HR_VERSION_N_FILES] = {"config.json", "model.safetensors",
                                                              "verify.jsonl"};

/* ---- Stamps ---- */

static uint64_t nanoseconds(struct timespec time) {
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static hr_file_stamp stamp_at(int dir, const char *path) {
    struct stat st;
    if (fstatat(dir, path, &st, 0) != 0) return (hr_file_stamp){0};
    if (!S_ISREG(st.st_mode))
        return (hr_file_stamp){.inode = st.st_ino}; /* a pipe's times change as it is read */
    return (hr_file_stamp){.inode = st.st_ino,
                           .nbytes = (uint64_t)st.st_size,
                           .modified_ns = nanoseconds(st.st_mtim),
                           .changed_ns = nanoseconds(st.st_ctim)};
}

hr_file_stamp hr_file_stamp_of(const char *path) {
    return stamp_at(AT_FDCWD, path);
}

static hr_version_stamp version_stamp_at(int dir, const char *folder) {
    hr_version_stamp stamp = {0};
    for (size_t i = 0; i < HR_VERSION_N_FILES; i++) {
        char path[NAME_MAX + sizeof "/model.safetensors"];
        int n = snprintf(path, sizeof path, "%s/%s", folder, version_files[i]);
        if (n > 0 && n < (int)sizeof path) stamp.files[i] = stamp_at(dir, path);
    }
    return stamp;
}

hr_version_stamp hr_version_stamp_of(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return (hr_version_stamp){0};
    hr_version_stamp stamp = version_stamp_at(fd, ".");
    close(fd);
    return stamp;
}

bool hr_file_stamps_equal(const hr_file_stamp *a, const hr_file_stamp *b) {
    return a->inode == b->inode && a->nbytes == b->nbytes && a->modified_ns == b->modified_ns &&
           a->changed_ns == b->changed_ns;
}

bool hr_version_stamps_equal(const hr_version_stamp *a, const hr_version_stamp *b) {
    for (size_t i = 0; i < HR_VERSION_N_FILES; i++)
        if (!hr_file_stamps_equal(&a->files[i], &b->files[i])) return false;
    return true;
}

/* ---- Folders ---- */

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

/* The next entry whose name is wanted; *name is NULL behind the last. */
static hr_status next_entry(DIR *dir, bool (*wanted)(const char *), const char **name, hr_error *err) {
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        *name = entry == NULL ? NULL : entry->d_name;
        if (entry == NULL && errno != 0)
            return hr_error_set(err, HR_IO, "cannot read the folder: %s", strerror(errno));
        if (entry == NULL || wanted(*name)) return HR_OK;
    }
}

/* Room for one more element of size nbytes behind n of them. */
static bool grow(void **list, size_t n, size_t nbytes) {
    void *grown = realloc(*list, (n + 1) * nbytes);
    if (grown != NULL) *list = grown;
    return grown != NULL;
}

static int newest_first(const void *a, const void *b) {
    uint64_t x = ((const hr_version_folder *)a)->version, y = ((const hr_version_folder *)b)->version;
    return x > y ? -1 : x < y;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const hr_model_folder *)a)->name, ((const hr_model_folder *)b)->name);
}

/* Adds the version of that name, if it is a folder. */
static hr_status read_version(int dir, const char *name, hr_model_folder *model, hr_error *err) {
    struct stat st;
    if (fstatat(dir, name, &st, 0) != 0) {
        if (errno == ENOENT) return HR_OK;
        return hr_error_set(err, HR_IO, "cannot read version %s: %s", name, strerror(errno));
    }
    if (!S_ISDIR(st.st_mode)) return HR_OK;
    if (!grow((void **)&model->versions, model->n_versions, sizeof *model->versions))
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    hr_version_folder *version = &model->versions[model->n_versions++];
    hr_version_parse(name, &version->version);
    version->stamp = version_stamp_at(dir, name);
    return HR_OK;
}

static hr_status read_versions(DIR *dir, hr_model_folder *model, hr_error *err) {
    const char *name;
    hr_status status;
    while ((status = next_entry(dir, is_version_name, &name, err)) == HR_OK && name != NULL) {
        status = read_version(dirfd(dir), name, model, err);
        if (status != HR_OK) break;
    }
    if (model->n_versions > 1)
        qsort(model->versions, model->n_versions, sizeof *model->versions, newest_first);
    return status;
}

/* The opened folder, or NULL: where the name is one's that cannot be opened, err says why. */
static DIR *open_folder(int root, const char *name, hr_error *err) {
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir != NULL || (fd < 0 && (errno == ENOENT || errno == ENOTDIR))) return dir;
    hr_error_set(err, HR_IO, "cannot open the folder: %s", strerror(errno));
    if (fd >= 0) close(fd);
    return NULL;
}

/* The new last model, of that name; NULL when out of memory. */
static hr_model_folder *add_model(hr_folders *folders, const char *name) {
    char *copy = strdup(name);
    if (copy == NULL || !grow((void **)&folders->models, folders->n_models, sizeof *folders->models)) {
        free(copy);
        return NULL;
    }
    hr_model_folder *model = &folders->models[folders->n_models++];
    *model = (hr_model_folder){.name = copy};
    return model;
}

/* Adds the model of that name, if it is a folder; what cannot be read is the model's own error. */
static hr_status read_model(int root, const char *name, hr_folders *folders, hr_error *err) {
    hr_error why = {.code = HR_OK};
    DIR *dir = open_folder(root, name, &why);
    if (dir == NULL && why.code == HR_OK) return HR_OK;
    hr_model_folder *model = add_model(folders, name);
    if (model != NULL && dir != NULL) {
        model->labels = stamp_at(dirfd(dir), "labels.json");
        read_versions(dir, model, &why);
    }
    if (dir != NULL) closedir(dir);
    if (model == NULL || why.code == HR_OUT_OF_MEMORY)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    model->error = why;
    return HR_OK;
}

static hr_status read_models(DIR *root, hr_folders *folders, hr_error *err) {
    const char *name;
    hr_status status;
    while ((status = next_entry(root, is_model_name, &name, err)) == HR_OK && name != NULL) {
        status = read_model(dirfd(root), name, folders, err);
        if (status != HR_OK) break;
    }
    if (folders->n_models > 1) qsort(folders->models, folders->n_models, sizeof *folders->models, by_name);
    return status;
}

hr_status hr_folders_read(const char *root, hr_folders *folders, hr_error *err) {
    *folders = (hr_folders){0};
    hr_quoted shown = hr_quote(root, strlen(root));
    DIR *dir = opendir(root);
    if (dir == NULL)
        return hr_error_set(err, HR_IO, "cannot open folder %s: %s", shown.text, strerror(errno));
    hr_status status = read_models(dir, folders, err);
    closedir(dir);
    if (status == HR_OK) return HR_OK;
    hr_folders_clear(folders);
    return hr_error_prefix(err, "%s", shown.text);
}

void hr_folders_clear(hr_folders *folders) {
    for (size_t i = 0; i < folders->n_models; i++) {
        free(folders->models[i].name);
        free(folders->models[i].versions);
    }
    free(folders->models);
    *folders = (hr_folders){0};
}
