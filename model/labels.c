/* labels.json: see labels.h. */
#include "model/labels.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schema/json_read.h"

enum { MAX_NBYTES = 64 << 10 };

bool hr_label_is_name(const char *text) {
    return strlen(text) < HR_LABEL_SIZE && hr_json_is_name(text);
}

/* ---- Reading ---- */

static hr_status parse(const json_t *root, hr_version_label *labels, size_t *n_labels, hr_error *err) {
    const char *name;
    json_t *version;
    json_object_foreach((json_t *)root, name, version) { /* the macro wants it; nothing is changed */
        if (!hr_label_is_name(name))
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "expected a label of letters, digits, _ and - (at most %d), found %s",
                                HR_LABEL_SIZE - 1, hr_quote(name, strlen(name)).text);
        if (!json_is_integer(version) || json_integer_value(version) < 1)
            return hr_json_expected(name, NULL, "a version, an integer >= 1", version, err);
        hr_version_label *label = &labels[(*n_labels)++];
        *label = (hr_version_label){.version = (uint64_t)json_integer_value(version)};
        memcpy(label->name, name, strlen(name));
    }
    return HR_OK;
}

static hr_status parse_text(const char *text, size_t nbytes, hr_version_label **labels, size_t *n_labels,
                            hr_error *err) {
    json_error_t why;
    json_t *root = json_loadb(text, nbytes, JSON_REJECT_DUPLICATES, &why);
    hr_status status = HR_OK;
    if (root == NULL)
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "line %d, column %d: expected JSON: %s", why.line,
                              why.column, hr_quote(why.text, strlen(why.text)).text);
    else if (!json_is_object(root))
        status = hr_json_expected("the file", NULL, "an object {\"label\": version}", root, err);
    else if (json_object_size(root) > HR_LABELS_MAX)
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "expected at most %d labels, found %zu",
                              HR_LABELS_MAX, json_object_size(root));
    if (status == HR_OK) {
        *labels = calloc(json_object_size(root) + 1, sizeof **labels);
        status = *labels == NULL ? hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory")
                                 : parse(root, *labels, n_labels, err);
    }
    json_decref(root);
    return status;
}

/* The whole file in text[MAX_NBYTES + 1]. */
static hr_status read_text(int fd, char *text, size_t *nbytes, hr_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return hr_error_set(err, HR_IO, "expected a regular file");
    for (*nbytes = 0; *nbytes <= MAX_NBYTES;) {
        ssize_t n = read(fd, text + *nbytes, MAX_NBYTES + 1 - *nbytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return hr_error_set(err, HR_IO, "cannot read: %s", strerror(errno));
        if (n == 0) return HR_OK;
        *nbytes += (size_t)n;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected at most %d bytes, found more", MAX_NBYTES);
}

hr_status hr_labels_read(const char *path, hr_version_label **labels, size_t *n_labels, hr_error *err) {
    *labels = NULL;
    *n_labels = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) return HR_OK;
    if (fd < 0) return hr_error_set(err, HR_IO, "labels.json: cannot open: %s", strerror(errno));
    size_t nbytes = 0;
    char *text = malloc(MAX_NBYTES + 1);
    hr_status status = text == NULL ? hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory")
                                    : read_text(fd, text, &nbytes, err);
    if (status == HR_OK) status = parse_text(text, nbytes, labels, n_labels, err);
    free(text);
    close(fd);
    if (status == HR_OK) return HR_OK;
    free(*labels);
    *labels = NULL;
    *n_labels = 0;
    return hr_error_prefix(err, "labels.json");
}

/* ---- Writing ---- */

static hr_status to_text(const hr_version_label *labels, size_t n_labels, char **text, hr_error *err) {
    json_t *root = json_object();
    bool made = root != NULL;
    for (size_t i = 0; made && i < n_labels; i++)
        made = json_object_set_new(root, labels[i].name, json_integer((json_int_t)labels[i].version)) == 0;
    *text = made ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return *text != NULL ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
}

static bool write_all(int fd, const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        text += n;
        left -= (size_t)n;
    }
    return fsync(fd) == 0;
}

/* Makes a rename in the file's folder survive a crash. path is cut in place. */
static bool sync_folder_of(char *path) {
    int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    bool synced = fsync(fd) == 0;
    close(fd);
    return synced;
}

/* temporary is path with a suffix of its own. */
static bool replace(char *path, const char *temporary, const char *text) {
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return false;
    bool written = write_all(fd, text);
    int why = errno;
    if (close(fd) != 0 && written) {
        written = false;
        why = errno;
    }
    if (written && rename(temporary, path) == 0) return sync_folder_of(path);
    if (!written) errno = why;
    why = errno;
    unlink(temporary);
    errno = why;
    return false;
}

hr_status hr_labels_write(const char *path, const hr_version_label *labels, size_t n_labels, hr_error *err) {
    char *text = NULL, *target = NULL, *temporary = NULL;
    hr_status status = to_text(labels, n_labels, &text, err);
    if (asprintf(&target, "%s", path) < 0) target = NULL;
    if (asprintf(&temporary, "%s.tmp", path) < 0) temporary = NULL;
    if (status == HR_OK && (target == NULL || temporary == NULL))
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    if (status == HR_OK && !replace(target, temporary, text))
        status = hr_error_set(err, HR_IO, "labels.json: cannot write: %s", strerror(errno));
    free(temporary);
    free(target);
    free(text);
    return status;
}
