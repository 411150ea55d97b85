/* The line writer of text_file.h: text is gathered in a buffer, encoded when it is full, written with
 * write(2). */
#include "base/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/text_suffix.h"

enum { TEXT_NBYTES = 1 << 17, RAW_NBYTES = 1 << 17 };

struct hr_line_writer {
    char *path; /* owned */
    int fd;
    hr_error error; /* the first one; sticks */
    /* Takes the text in, and, where it is the file's last, completes the file. */
    hr_status (*encode)(hr_line_writer *writer, const char *text, size_t nbytes, bool ends);
    z_stream gzip;
    bool gzip_open;
    ZSTD_CStream *zstd;
    char *text; /* TEXT_NBYTES, the first text_nbytes of them used */
    size_t text_nbytes;
    unsigned char *raw; /* RAW_NBYTES; encoders only */
};

static hr_status write_bytes(hr_line_writer *w, const void *bytes, size_t nbytes) {
    const char *at = bytes;
    while (nbytes > 0) {
        ssize_t n = write(w->fd, at, nbytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return hr_error_set(&w->error, HR_IO, "%s: cannot write: %s", w->path, strerror(errno));
        at += n;
        nbytes -= (size_t)n;
    }
    return HR_OK;
}

static hr_status encode_plain(hr_line_writer *w, const char *text, size_t nbytes, bool ends) {
    (void)ends;
    return write_bytes(w, text, nbytes);
}

static hr_status encode_gzip(hr_line_writer *w, const char *text, size_t nbytes, bool ends) {
    w->gzip.next_in = (z_const unsigned char *)text;
    w->gzip.avail_in = (uInt)nbytes;
    do {
        w->gzip.next_out = w->raw;
        w->gzip.avail_out = RAW_NBYTES;
        if (deflate(&w->gzip, ends ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_ERROR)
            return hr_error_set(&w->error, HR_INTERNAL, "%s: zlib failed", w->path);
        hr_status status = write_bytes(w, w->raw, RAW_NBYTES - w->gzip.avail_out);
        if (status != HR_OK) return status;
    } while (w->gzip.avail_out == 0);
    return HR_OK;
}

static hr_status encode_zstd(hr_line_writer *w, const char *text, size_t nbytes, bool ends) {
    ZSTD_inBuffer in = {text, nbytes, 0};
    bool more;
    do {
        ZSTD_outBuffer out = {w->raw, RAW_NBYTES, 0};
        size_t left = ZSTD_compressStream2(w->zstd, &out, &in, ends ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return hr_error_set(&w->error, HR_INTERNAL, "%s: zstd: %s", w->path, ZSTD_getErrorName(left));
        hr_status status = write_bytes(w, w->raw, out.pos);
        if (status != HR_OK) return status;
        more = ends ? left > 0 : in.pos < in.size;
    } while (more);
    return HR_OK;
}

static bool open_encoder(hr_line_writer *w) {
    w->encode = encode_plain;
    if (hr__path_has_suffix(w->path, ".gz")) {
        w->encode = encode_gzip;
        w->raw = malloc(RAW_NBYTES);
        w->gzip_open =
            w->raw != NULL && deflateInit2(&w->gzip, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                                           15 + 16 /* gzip, not zlib */, 8, Z_DEFAULT_STRATEGY) == Z_OK;
        return w->gzip_open;
    }
    if (hr__path_has_suffix(w->path, ".zst")) {
        w->encode = encode_zstd;
        w->raw = malloc(RAW_NBYTES);
        w->zstd = ZSTD_createCStream();
        return w->raw != NULL && w->zstd != NULL;
    }
    return true;
}

static void writer_free(hr_line_writer *w) {
    if (w->gzip_open) deflateEnd(&w->gzip);
    ZSTD_freeCStream(w->zstd);
    free(w->raw);
    free(w->text);
    free(w->path);
    free(w);
}

hr_status hr_line_writer_open(const char *path, hr_line_writer **writer, hr_error *err) {
    *writer = NULL;
    hr_line_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", path);
    w->path = strdup(path);
    w->text = malloc(TEXT_NBYTES);
    if (w->path == NULL || w->text == NULL || !open_encoder(w)) {
        writer_free(w);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", path);
    }
    bool is_stdout = strcmp(path, "-") == 0;
    w->fd = is_stdout ? STDOUT_FILENO : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        hr_error_set(err, HR_IO, "%s: cannot write: %s", path, strerror(errno));
        writer_free(w);
        return HR_IO;
    }
    *writer = w;
    return HR_OK;
}

static hr_status report(const hr_line_writer *w, hr_error *err) {
    if (w->error.code != HR_OK && err != NULL) *err = w->error;
    return w->error.code;
}

static void encode_text(hr_line_writer *w, bool ends) {
    if (w->error.code == HR_OK) w->encode(w, w->text, w->text_nbytes, ends);
    w->text_nbytes = 0;
}

static void put_bytes(hr_line_writer *w, const char *bytes, size_t nbytes) {
    while (nbytes > 0 && w->error.code == HR_OK) {
        size_t n = TEXT_NBYTES - w->text_nbytes;
        if (n > nbytes) n = nbytes;
        memcpy(w->text + w->text_nbytes, bytes, n);
        w->text_nbytes += n;
        bytes += n;
        nbytes -= n;
        if (w->text_nbytes == TEXT_NBYTES) encode_text(w, false);
    }
}

hr_status hr_line_writer_put(hr_line_writer *w, const char *line, size_t nbytes, hr_error *err) {
    put_bytes(w, line, nbytes);
    put_bytes(w, "\n", 1);
    return report(w, err);
}

hr_status hr_line_writer_close(hr_line_writer *w, hr_error *err) {
    if (w == NULL) return HR_OK;
    encode_text(w, true);
    if (w->fd > STDOUT_FILENO && close(w->fd) != 0 && w->error.code == HR_OK)
        hr_error_set(&w->error, HR_IO, "%s: cannot write: %s", w->path, strerror(errno));
    hr_status status = report(w, err);
    writer_free(w);
    return status;
}
