/* The line reader of text_file.h.
 *
 * Bytes flow raw (as on disk) -> text (decoded) -> line. A plain file has no raw stage. A line that lies in
 * `text` as a whole is handed out where it is; only one that spans two fills is assembled in `line`.
 */
#include "base/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/text_suffix.h"

enum { RAW_NBYTES = 1 << 17, TEXT_NBYTES = 1 << 18 };

struct hr_line_reader {
    char *path; /* owned */
    int fd;
    const atomic_bool *stop; /* borrowed; may be NULL */
    uint64_t nbytes_read, nbytes_total, line_number;

    /* decode: plain where it is NULL; appends to text, *n = 0 at the end of the file. */
    hr_status (*decode)(hr_line_reader *reader, size_t *n, hr_error *err);
    z_stream gzip;
    bool gzip_open;
    ZSTD_DStream *zstd;
    bool between_frames; /* a gzip member or zstd frame has just ended: the file may end here */
    unsigned char *raw;  /* RAW_NBYTES */
    size_t raw_at, raw_end;

    char *text; /* TEXT_NBYTES */
    size_t text_at, text_end;
    bool ended;

    char *line; /* owned; line_capacity bytes */
    size_t line_nbytes, line_capacity, max_line_nbytes;
};

/* One read(2); *n = 0 at the end of the file. */
static hr_status read_bytes(hr_line_reader *r, void *to, size_t capacity, size_t *n, hr_error *err) {
    for (;;) {
        ssize_t got = read(r->fd, to, capacity);
        if (got >= 0) {
            *n = (size_t)got;
            r->nbytes_read += *n;
            return HR_OK;
        }
        if (errno != EINTR) return hr_error_set(err, HR_IO, "%s: cannot read: %s", r->path, strerror(errno));
        if (r->stop != NULL && atomic_load(r->stop))
            return hr_error_set(err, HR_CANCELLED, "%s: interrupted", r->path);
    }
}

static hr_status refill_raw(hr_line_reader *r, hr_error *err) {
    if (r->raw_at < r->raw_end) return HR_OK;
    r->raw_at = 0;
    r->raw_end = 0;
    return read_bytes(r, r->raw, RAW_NBYTES, &r->raw_end, err);
}

static hr_status decode_plain(hr_line_reader *r, size_t *n, hr_error *err) {
    return read_bytes(r, r->text, TEXT_NBYTES, n, err);
}

static hr_status truncated(const hr_line_reader *r, const char *format, hr_error *err) {
    return hr_error_set(err, HR_IO, "%s: the %s data ends too early: the file is truncated", r->path, format);
}

/* Members may follow one another, as `cat a.gz b.gz` makes them. */
static hr_status decode_gzip(hr_line_reader *r, size_t *n, hr_error *err) {
    *n = 0;
    while (*n == 0) {
        hr_status status = refill_raw(r, err);
        if (status != HR_OK) return status;
        if (r->raw_end == 0) return r->between_frames ? HR_OK : truncated(r, "gzip", err);
        if (r->between_frames && inflateReset(&r->gzip) != Z_OK)
            return hr_error_set(err, HR_INTERNAL, "%s: zlib cannot be reset", r->path);
        r->between_frames = false;
        r->gzip.next_in = r->raw + r->raw_at;
        r->gzip.avail_in = (uInt)(r->raw_end - r->raw_at);
        r->gzip.next_out = (unsigned char *)r->text;
        r->gzip.avail_out = TEXT_NBYTES;
        int rc = inflate(&r->gzip, Z_NO_FLUSH);
        if (rc != Z_OK && rc != Z_STREAM_END)
            return hr_error_set(err, HR_IO, "%s: not valid gzip data: %s", r->path,
                                r->gzip.msg != NULL ? r->gzip.msg : zError(rc));
        r->raw_at = r->raw_end - r->gzip.avail_in;
        r->between_frames = rc == Z_STREAM_END;
        *n = TEXT_NBYTES - r->gzip.avail_out;
    }
    return HR_OK;
}

static hr_status decode_zstd(hr_line_reader *r, size_t *n, hr_error *err) {
    *n = 0;
    while (*n == 0) {
        hr_status status = refill_raw(r, err);
        if (status != HR_OK) return status;
        bool no_more = r->raw_end == 0;
        ZSTD_inBuffer in = {r->raw, r->raw_end, r->raw_at};
        ZSTD_outBuffer out = {r->text, TEXT_NBYTES, 0};
        if (no_more && r->between_frames) return HR_OK;
        size_t rc = ZSTD_decompressStream(r->zstd, &out, &in);
        if (ZSTD_isError(rc))
            return hr_error_set(err, HR_IO, "%s: not valid zstd data: %s", r->path, ZSTD_getErrorName(rc));
        r->raw_at = in.pos;
        r->between_frames = rc == 0;
        *n = out.pos;
        if (no_more && *n == 0 && !r->between_frames) return truncated(r, "zstd", err);
    }
    return HR_OK;
}

static hr_status open_decoder(hr_line_reader *r, hr_error *err) {
    bool ok = true;
    r->decode = decode_plain;
    if (hr__path_has_suffix(r->path, ".gz")) {
        r->decode = decode_gzip;
        r->raw = malloc(RAW_NBYTES);
        r->gzip_open = r->raw != NULL && inflateInit2(&r->gzip, 15 + 16 /* gzip, not zlib */) == Z_OK;
        ok = r->gzip_open;
    } else if (hr__path_has_suffix(r->path, ".zst")) {
        r->decode = decode_zstd;
        r->raw = malloc(RAW_NBYTES);
        r->zstd = ZSTD_createDStream();
        ok = r->raw != NULL && r->zstd != NULL;
    }
    return ok ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", r->path);
}

static hr_status open_file(hr_line_reader *r, hr_error *err) {
    r->fd = strcmp(r->path, "-") == 0 ? STDIN_FILENO : open(r->path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0) {
        hr_status code = errno == ENOENT ? HR_NOT_FOUND : HR_IO;
        return hr_error_set(err, code, "%s: cannot open: %s", r->path, strerror(errno));
    }
    struct stat st;
    if (fstat(r->fd, &st) != 0)
        return hr_error_set(err, HR_IO, "%s: cannot stat: %s", r->path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return hr_error_set(err, HR_IO, "%s: expected a file, found a directory", r->path);
    if (S_ISREG(st.st_mode)) r->nbytes_total = (uint64_t)st.st_size;
    return HR_OK;
}

hr_status hr_line_reader_open(const char *path, size_t max_line_nbytes, const atomic_bool *stop,
                              hr_line_reader **reader, hr_error *err) {
    *reader = NULL;
    hr_line_reader *r = calloc(1, sizeof *r);
    if (r == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", path);
    r->fd = -1;
    r->stop = stop;
    r->max_line_nbytes = max_line_nbytes;
    r->path = strdup(path);
    r->text = malloc(TEXT_NBYTES);
    hr_status status = HR_OK;
    if (r->path == NULL || r->text == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", path);
    if (status == HR_OK) status = open_file(r, err);
    if (status == HR_OK) status = open_decoder(r, err);
    if (status != HR_OK) {
        hr_line_reader_close(r);
        return status;
    }
    *reader = r;
    return HR_OK;
}

void hr_line_reader_close(hr_line_reader *r) {
    if (r == NULL) return;
    if (r->fd > STDIN_FILENO) close(r->fd);
    if (r->gzip_open) inflateEnd(&r->gzip);
    ZSTD_freeDStream(r->zstd);
    free(r->raw);
    free(r->line);
    free(r->text);
    free(r->path);
    free(r);
}

/* Appends to r->line; false when out of memory. Room for a NUL is always left. */
static bool append(hr_line_reader *r, const char *bytes, size_t nbytes) {
    if (r->line_nbytes + nbytes + 1 > r->line_capacity) {
        size_t capacity = (r->line_nbytes + nbytes + 1) * 2;
        char *grown = realloc(r->line, capacity);
        if (grown == NULL) return false;
        r->line = grown;
        r->line_capacity = capacity;
    }
    memcpy(r->line + r->line_nbytes, bytes, nbytes);
    r->line_nbytes += nbytes;
    return true;
}

/* Hands out bytes[0..n), which has room for a NUL behind it. */
static void finish_line(char *bytes, size_t n, const char **line, size_t *nbytes) {
    if (n > 0 && bytes[n - 1] == '\r') n--;
    bytes[n] = '\0';
    *line = bytes;
    *nbytes = n;
}

hr_status hr_line_reader_next(hr_line_reader *r, const char **line, size_t *nbytes, hr_error *err) {
    *line = NULL;
    *nbytes = 0;
    r->line_nbytes = 0;
    bool begun = false, too_long = false, complete = false;
    while (!complete && !r->ended) {
        if (r->text_at == r->text_end) {
            r->text_at = 0;
            r->text_end = 0;
            hr_status status = r->decode(r, &r->text_end, err);
            if (status != HR_OK) return status;
            r->ended = r->text_end == 0;
            continue;
        }
        char *begin = r->text + r->text_at;
        char *end = memchr(begin, '\n', r->text_end - r->text_at);
        size_t n = end != NULL ? (size_t)(end - begin) : r->text_end - r->text_at;
        r->text_at += n + (end != NULL);
        complete = end != NULL;
        too_long = too_long || n > r->max_line_nbytes - r->line_nbytes;
        if (complete && !begun && !too_long) {
            r->line_number++;
            finish_line(begin, n, line, nbytes);
            return HR_OK;
        }
        begun = true;
        if (!too_long && !append(r, begin, n))
            return hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", r->path);
    }
    if (!begun) return HR_OK;
    r->line_number++;
    if (too_long)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "expected a line of at most %zu bytes, found a longer one", r->max_line_nbytes);
    finish_line(r->line, r->line_nbytes, line, nbytes);
    return HR_OK;
}

uint64_t hr_line_reader_number(const hr_line_reader *r) {
    return r->line_number;
}

void hr_line_reader_progress(const hr_line_reader *r, uint64_t *nbytes_read, uint64_t *nbytes_total) {
    *nbytes_read = r->nbytes_read;
    *nbytes_total = r->nbytes_total;
}
