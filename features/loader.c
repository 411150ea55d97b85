/* `features load`: see loader.h.
 *
 * Lines are parsed and put into a writer; at the end of each batch the writer commits, and only then does the
 * line to resume from move on. So whatever ends a load, every line before that one is in the store or was
 * reported.
 */
#include "features/loader.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/text_file.h"
#include "features/load_line.h"
#include "features/load_progress.h"
#include "features/record_writer.h"

enum { LINE_ARENA_NBYTES = 512 << 20 };

typedef struct load {
    const hr_load_options *options;
    hr_load_result *result;
    hr_line_reader *reader;
    hr_record_writer *writer;
    hr_arena *arena; /* one line's */
    hr_load_progress progress;
    bool store_failed; /* nothing more can be committed */
} load;

static void say_bad_line(load *l, const hr_error *why) {
    l->result->n_bad_lines++;
    hr_load_progress_say(&l->progress, l->options->in, hr_line_reader_number(l->reader), why->message);
}

static hr_status commit(load *l, hr_error *err) {
    size_t n = l->writer->n_taken;
    hr_status status = l->writer->i->commit(l->writer, err);
    l->store_failed = status != HR_OK;
    if (status != HR_OK) return status;
    l->result->n_records += n;
    l->result->resume_line = hr_line_reader_number(l->reader) + 1;
    return HR_OK;
}

static void draw(load *l) {
    uint64_t nbytes, nbytes_total;
    hr_line_reader_progress(l->reader, &nbytes, &nbytes_total);
    hr_load_progress_draw(&l->progress, l->result->n_records + l->writer->n_taken, nbytes, nbytes_total);
}

/* Puts one line; what is wrong with the line alone is reported and is no error. */
static hr_status load_line(load *l, const char *text, size_t nbytes, hr_error *err) {
    hr_load_line line;
    hr_error why = {0};
    hr_arena_reset(l->arena);
    hr_status status = hr_load_line_parse(text, nbytes, l->arena, &line, &why);
    if (status == HR_OK) status = l->writer->i->put(l->writer, line.entity, line.id, line.features, &why);
    if (status == HR_INVALID_ARGUMENT) {
        say_bad_line(l, &why);
        return HR_OK;
    }
    l->store_failed = status != HR_OK;
    if (status != HR_OK && err != NULL) *err = why;
    return status;
}

/* The next line from from_line on; *text is NULL at the end. Lines too long are reported and passed over. */
static hr_status next_line(load *l, const char **text, size_t *nbytes, hr_error *err) {
    for (;;) {
        hr_error why = {0};
        hr_status status = hr_line_reader_next(l->reader, text, nbytes, &why);
        bool skipped = hr_line_reader_number(l->reader) < l->options->from_line;
        if (status == HR_INVALID_ARGUMENT) {
            if (!skipped) say_bad_line(l, &why);
        } else if (status != HR_OK) {
            if (err != NULL) *err = why;
            return status;
        } else if (*text == NULL || !skipped) {
            return HR_OK;
        }
    }
}

static hr_status load_lines(load *l, hr_error *err) {
    const hr_record_writer *w = l->writer;
    const char *text;
    size_t nbytes;
    for (;;) {
        if (l->options->stop != NULL && atomic_load(l->options->stop))
            return hr_error_set(err, HR_CANCELLED, "%s: interrupted", l->options->in);
        hr_status status = next_line(l, &text, &nbytes, err);
        if (status == HR_OK && text == NULL) return HR_OK;
        if (status == HR_OK) status = load_line(l, text, nbytes, err);
        if (status == HR_OK && (w->n_taken >= w->batch_records || w->nbytes_taken >= w->batch_nbytes))
            status = commit(l, err);
        if (status != HR_OK) return status;
        draw(l);
    }
}

static hr_status check_from_line(const load *l, hr_error *err) {
    uint64_t n_lines = hr_line_reader_number(l->reader);
    if (l->options->from_line <= n_lines + 1) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected at least %" PRIu64 " lines, found %" PRIu64,
                        l->options->in, l->options->from_line - 1, n_lines);
}

/* What was taken before an interruption, or before a damaged part of the file, is committed all the same. */
static hr_status run(load *l, hr_error *err) {
    hr_status status = load_lines(l, err);
    if (status == HR_OK) status = commit(l, err);
    if (status == HR_OK) return check_from_line(l, err);
    hr_error why = {0};
    if (!l->store_failed && l->writer->n_taken > 0 && commit(l, &why) != HR_OK) {
        status = why.code;
        if (err != NULL) *err = why;
    }
    hr_error_prefix(err, "go on with --from-line %" PRIu64, l->result->resume_line);
    return status;
}

hr_status hr_features_load(const hr_load_options *options, hr_load_result *result, hr_error *err) {
    *result = (hr_load_result){.resume_line = options->from_line > 1 ? options->from_line : 1};
    load l = {.options = options, .result = result};
    uint64_t begin_ns = hr_clock_ns();
    hr_store_uri *uri = malloc(sizeof *uri);
    l.arena = hr_arena_create(LINE_ARENA_NBYTES);
    hr_status status = HR_OK;
    if (uri == NULL || l.arena == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "load: out of memory");
    if (status == HR_OK) status = hr_store_uri_parse(options->store, uri, err);
    if (status == HR_OK)
        status = hr_line_reader_open(options->in, HR_LINE_MAX_NBYTES, options->stop, &l.reader, err);
    if (status == HR_OK) status = hr_record_writer_open(uri, &l.writer, err);
    if (status == HR_OK) {
        l.progress = hr_load_progress_begin(options->messages, options->progress);
        status = run(&l, err);
        hr_load_progress_end(&l.progress);
    }
    if (l.writer != NULL) l.writer->i->close(l.writer);
    hr_line_reader_close(l.reader);
    hr_arena_destroy(l.arena);
    free(uri);
    result->seconds = (double)(hr_clock_ns() - begin_ns) / 1e9;
    return status;
}
