/* Exposures in a file: see exposure_file.h. One thread. */
#include "service/exposures/exposure_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

typedef struct exposure_file {
    char *path; /* owned */
    uint64_t max_nbytes, max_age_ns;
    int fd;             /* -1: none is open */
    bool is_regular;    /* else it is never rotated (a pipe, a device) */
    bool is_torn;       /* it ends in the middle of a line that could not be taken back */
    uint64_t nbytes;    /* in the file */
    uint64_t since_ns;  /* when it was begun, or found */
    uint64_t looked_ns; /* when it was last seen to be at its path */
} exposure_file;

static hr_status failed(const exposure_file *file, const char *what, hr_error *err) {
    return hr_error_set(err, HR_IO, "cannot %s %s: %s", what, hr_quote(file->path, strlen(file->path)).text,
                        strerror(errno));
}

static void close_file(exposure_file *file) {
    if (file->fd < 0) return;
    fdatasync(file->fd);
    close(file->fd);
    file->fd = -1;
}

/* What a crash left of a last line is ended, so that the next one is whole. */
static bool ends_in_line(const exposure_file *file) {
    char last = '\n';
    if (file->nbytes > 0 && pread(file->fd, &last, 1, (off_t)file->nbytes - 1) != 1) last = '\n';
    return last == '\n';
}

static hr_status open_file(exposure_file *file, hr_error *err) {
    struct stat st;
    const int flags = O_APPEND | O_CLOEXEC | O_NONBLOCK; /* whoever reads a pipe may have stopped doing so */
    file->fd = open(file->path, O_RDWR | O_CREAT | flags, 0640);
    if (file->fd < 0 && (errno == EACCES || errno == ENXIO)) /* a pipe, or one that may only be written */
        file->fd = open(file->path, O_WRONLY | flags);
    if (file->fd < 0) return failed(file, "open", err);
    if (fstat(file->fd, &st) != 0) {
        hr_status status = failed(file, "look at", err);
        close_file(file);
        return status;
    }
    file->is_regular = S_ISREG(st.st_mode);
    file->nbytes = file->is_regular ? (uint64_t)st.st_size : 0;
    file->is_torn = file->is_regular && !ends_in_line(file);
    file->since_ns = file->looked_ns = hr_clock_ns();
    return HR_OK;
}

/* PATH.20261123T164000.123Z, with -1, -2, ... behind it where there is one already. */
static hr_status rotated_path(const exposure_file *file, char to[PATH_MAX], hr_error *err) {
    char when[32];
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(when, sizeof when, "%Y%m%dT%H%M%S", &parts);
    int n = snprintf(to, PATH_MAX, "%s.%s.%03ldZ", file->path, when, now.tv_nsec / 1000000);
    for (int i = 1; n < PATH_MAX - 16; i++) {
        if (access(to, F_OK) != 0) return HR_OK;
        snprintf(to + n, PATH_MAX - (size_t)n, "-%d", i);
    }
    errno = ENAMETOOLONG;
    return failed(file, "rotate", err);
}

static hr_status rotate(exposure_file *file, hr_error *err) {
    char to[PATH_MAX];
    hr_status status = rotated_path(file, to, err);
    if (status != HR_OK) return status;
    if (rename(file->path, to) != 0) return failed(file, "rotate", err);
    close_file(file);
    return open_file(file, err);
}

static bool was_moved(exposure_file *file, uint64_t now_ns) {
    struct stat at_path, open_one;
    if (now_ns - file->looked_ns < UINT64_C(1000000000)) return false;
    file->looked_ns = now_ns;
    if (fstat(file->fd, &open_one) != 0) return false;
    return stat(file->path, &at_path) != 0 || at_path.st_ino != open_one.st_ino ||
           at_path.st_dev != open_one.st_dev;
}

/* The file that the next line of nbytes belongs into is open. A rotation that fails is said, and the old file
 * goes on. */
static hr_status file_for(exposure_file *file, size_t nbytes, hr_error *err) {
    const uint64_t now_ns = hr_clock_ns();
    if (file->fd >= 0 && was_moved(file, now_ns)) close_file(file);
    if (file->fd < 0) {
        hr_status status = open_file(file, err);
        if (status != HR_OK) return status;
    }
    bool is_old = file->max_age_ns > 0 && now_ns - file->since_ns > file->max_age_ns;
    bool is_full = file->nbytes + nbytes > file->max_nbytes;
    if (!file->is_regular || file->nbytes == 0 || !(is_old || is_full)) return HR_OK;
    hr_error why;
    if (rotate(file, &why) == HR_OK) return HR_OK;
    if (file->fd < 0) return hr_error_set(err, why.code, "%s", why.message);
    file->since_ns = now_ns; /* not again with every line */
    hr_log(HR_LOG_ERROR, "the exposure file was not rotated", HR_LOG_STR("reason", why.message));
    return HR_OK;
}

/* As many whole lines as fit into the file's size, but at least one; into a pipe one, which it takes whole or
 * not at all (up to PIPE_BUF). */
static size_t lines_that_fit(const exposure_file *file, const char *lines, size_t nbytes) {
    uint64_t room = file->max_nbytes > file->nbytes ? file->max_nbytes - file->nbytes : 0;
    if (nbytes <= room && file->is_regular) return nbytes;
    const char *last = room > 0 && file->is_regular ? memrchr(lines, '\n', (size_t)room) : NULL;
    if (last == NULL) last = memchr(lines, '\n', nbytes);
    return (size_t)(last - lines) + 1;
}

/* Takes back what a failed write left of a line. */
static void take_back(exposure_file *file, size_t nbytes) {
    if (nbytes == 0) return;
    if (file->is_regular && ftruncate(file->fd, (off_t)(file->nbytes - nbytes)) == 0) {
        file->nbytes -= nbytes;
        return;
    }
    file->is_torn = true;
}

/* Writes them; *n_done: of whole lines. */
static hr_status write_lines(exposure_file *file, const char *lines, size_t nbytes, size_t *n_done,
                             hr_error *err) {
    size_t n = 0;
    hr_status status = HR_OK;
    if (file->is_torn && write(file->fd, "\n", 1) != 1) return failed(file, "write to", err);
    file->nbytes += file->is_torn;
    file->is_torn = false;
    while (n < nbytes && status == HR_OK) {
        ssize_t wrote = write(file->fd, lines + n, nbytes - n);
        if (wrote >= 0)
            n += (size_t)wrote;
        else if (errno != EINTR)
            status = failed(file, "write to", err);
    }
    file->nbytes += n;
    const char *last = n > 0 ? memrchr(lines, '\n', n) : NULL;
    *n_done = last == NULL ? 0 : (size_t)(last - lines) + 1;
    take_back(file, n - *n_done);
    return status;
}

static hr_status exposure_file_write(void *place, const char *lines, size_t nbytes, size_t *n_done,
                                     hr_error *err) {
    exposure_file *file = place;
    hr_status status = HR_OK;
    *n_done = 0;
    while (status == HR_OK && *n_done < nbytes) {
        const char *from = lines + *n_done, *end = memchr(from, '\n', nbytes - *n_done);
        size_t n = 0;
        status = file_for(file, (size_t)(end - from) + 1, err);
        if (status == HR_OK) {
            status = write_lines(file, from, lines_that_fit(file, from, nbytes - *n_done), &n, err);
            *n_done += n;
        }
    }
    return status;
}

static void exposure_file_destroy(void *place) {
    exposure_file *file = place;
    close_file(file);
    free(file->path);
    free(file);
}

const hr_sink_place_i hr_exposure_file_i = {
    .name = "file",
    .write = exposure_file_write,
    .destroy = exposure_file_destroy,
};

hr_status hr_exposure_file_open(const hr_exposure_file_options *options, void **place, hr_error *err) {
    exposure_file *file = calloc(1, sizeof *file);
    *place = NULL;
    if (file != NULL) file->path = strdup(options->path);
    if (file == NULL || file->path == NULL) {
        free(file);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the exposure file");
    }
    file->fd = -1;
    file->max_nbytes = options->max_nbytes;
    file->max_age_ns = options->max_age_s * UINT64_C(1000000000);
    hr_status status = open_file(file, err);
    if (status != HR_OK) {
        exposure_file_destroy(file);
        return status;
    }
    *place = file;
    return HR_OK;
}
