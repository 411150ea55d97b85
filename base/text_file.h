/* Files of text lines, read and written: plain, gzip (`.gz`) or zstd (`.zst`) by their name; `-` is
 * stdin/stdout.
 *
 * Thread rule: a reader or writer belongs to one thread at a time.
 * Errors of a file (IO) name its path; an error of a line leaves its number to the caller, who knows the
 * words.
 */
#ifndef HOMERANK_BASE_TEXT_FILE_H
#define HOMERANK_BASE_TEXT_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { HR_LINE_MAX_NBYTES = 64 << 20 }; /* a sane bound for lines from outside */

typedef struct hr_line_reader hr_line_reader;

/* A line may have at most max_line_nbytes (its end not counted). `stop` (borrowed, may be NULL) is looked at
 * when a signal interrupts a read: once true, the read ends with CANCELLED, so that a reader of a pipe can be
 * stopped. Errors: NOT_FOUND (no such file), IO, OUT_OF_MEMORY. */
hr_status hr_line_reader_open(const char *path, size_t max_line_nbytes, const atomic_bool *stop,
                              hr_line_reader **reader, hr_error *err);
void hr_line_reader_close(hr_line_reader *reader); /* NULL is allowed */

/* The next line without its end (`\n` or `\r\n`), NUL-terminated, valid until the next call; *line is NULL at
 * the end of the file. A last line need not have an end. Lines may hold any bytes. Errors: INVALID_ARGUMENT:
 * the line is too long; it was skipped and the next call goes on behind it. All others are final: IO (a read
 * error, a damaged or truncated compressed file), CANCELLED, OUT_OF_MEMORY. */
hr_status hr_line_reader_next(hr_line_reader *reader, const char **line, size_t *nbytes, hr_error *err);

/* The number of the line last returned or skipped, from 1; 0 before the first. */
uint64_t hr_line_reader_number(const hr_line_reader *reader);

/* For progress: bytes of the file (as it lies on disk) read so far, and its size, 0 where that is unknown. */
void hr_line_reader_progress(const hr_line_reader *reader, uint64_t *nbytes_read, uint64_t *nbytes_total);

typedef struct hr_line_writer hr_line_writer;

/* Creates or truncates the file. Writing to a closed pipe is an error only where SIGPIPE is ignored.
 * Errors: IO naming the path and why, OUT_OF_MEMORY. */
hr_status hr_line_writer_open(const char *path, hr_line_writer **writer, hr_error *err);

/* Adds line[0..nbytes) and a line end. After an error every later call repeats it. Errors: IO. */
hr_status hr_line_writer_put(hr_line_writer *writer, const char *line, size_t nbytes, hr_error *err);

/* Completes the file, closes it and frees the writer, whatever it returns; the file is whole only where that
 * is OK. NULL is allowed. Errors: IO, the first one of this file. */
hr_status hr_line_writer_close(hr_line_writer *writer, hr_error *err);

#endif
