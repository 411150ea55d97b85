/* `features load`: see loader.h.
 *
 * This thread cuts the file into blocks, sends them through a pipe (load_pipe.h) and takes them out again in
 * order once all of a block is in the store; only then does the line to resume from move on. So whatever ends
 * a load, every line before that one is in the store or was reported; lines behind it may be there too, and
 * loading them again changes nothing.
 */
#include "features/loader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/text_file.h"
#include "base/thread.h"
#include "features/load_pipe.h"
#include "features/load_progress.h"
#include "features/load_resume.h"

enum { HEADER_ARENA_NBYTES = 64 << 20, DEFAULT_CONNECTIONS = 4, LOOKS_PER_SECOND = 10 };
static const uint64_t second_ns = 1000000000;

typedef struct load {
    const hr_load_options *options;
    hr_load_result *result;
    hr_store_uri *uri;
    hr_line_reader *reader;
    hr_record_writer *writer;
    hr_arena *header_arena;
    const hr_csv_header *header; /* NULL: JSON lines */
    hr_load_pipe *pipe;
    hr_load_progress progress;
    size_t block_lines, block_nbytes;
    uint64_t from_line, begin_ns;
    uint64_t n_lines;  /* put into the pipe */
    uint64_t saved_ns; /* when the resume file was last written */
    bool ended;        /* the file is read */
} load;

static bool is_stopped(const load *l) {
    return l->options->stop != NULL && atomic_load(l->options->stop);
}

/* --- taking blocks out ------------------------------------------------------------------------------------
 */

static void draw(load *l) {
    uint64_t nbytes, nbytes_total;
    hr_line_reader_progress(l->reader, &nbytes, &nbytes_total);
    hr_load_progress_draw(&l->progress, l->result->n_records, nbytes, nbytes_total);
}

static hr_status save(load *l, hr_error *err) {
    if (l->options->resume == NULL) return HR_OK;
    l->saved_ns = hr_clock_ns();
    return hr_load_resume_write(l->options->resume, l->options->in, l->uri->label, l->result->resume_line,
                                err);
}

static hr_status count_block(load *l, const hr_load_block *block, hr_error *err) {
    for (size_t i = 0; i < block->n_complaints; i++)
        hr_load_progress_say(&l->progress, l->options->in, block->complaints[i].line,
                             block->complaints[i].why.message);
    l->result->n_bad_lines += block->n_complaints;
    l->result->n_records += block->n_records;
    l->result->resume_line = block->next_line;
    return hr_clock_ns() - l->saved_ns >= second_ns ? save(l, err) : HR_OK;
}

/* Takes the blocks that are done; waits for one until until_ns. */
static hr_status take_blocks(load *l, uint64_t until_ns, hr_error *err) {
    for (;;) {
        hr_load_block *block;
        hr_status status = hr_load_pipe_take(l->pipe, until_ns, &block, err);
        draw(l);
        if (status != HR_OK || block == NULL) return status;
        status = count_block(l, block, err);
        hr_load_pipe_give_back(l->pipe);
        if (status != HR_OK) return status;
        until_ns = 0;
    }
}

static uint64_t next_look_ns(void) {
    return hr_clock_ns() + second_ns / LOOKS_PER_SECOND;
}

/* --- filling blocks ---------------------------------------------------------------------------------------
 */

/* A row of CSV that goes on in the next line. */
typedef struct open_row {
    bool open;     /* its quotes are */
    bool too_long; /* what follows of it is passed over */
} open_row;

static hr_status add_line(load *l, hr_load_block *block, const char *text, size_t nbytes, open_row *row,
                          hr_error *err) {
    const bool joins = row->open;
    const uint64_t number = hr_line_reader_number(l->reader);
    bool whole = true;
    if (l->options->csv) row->open ^= hr_csv_is_open(text, nbytes);
    if (!joins) row->too_long = false;
    if (joins && block->lines[block->n_lines - 1].nbytes + nbytes >= HR_LINE_MAX_NBYTES) {
        block->lines[block->n_lines - 1].too_long = true;
        row->too_long = true;
    }
    if (!row->too_long) whole = hr_load_block_add(block, text, nbytes, number, joins);
    return whole ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", l->options->in);
}

/* The next line into the block; lines before from_line are passed over. */
static hr_status next_line(load *l, hr_load_block *block, open_row *row, hr_error *err) {
    const char *text;
    size_t nbytes;
    hr_error why = {HR_OK, ""};
    hr_status status = hr_line_reader_next(l->reader, &text, &nbytes, &why);
    const bool skipped = hr_line_reader_number(l->reader) < l->from_line;
    if (status == HR_INVALID_ARGUMENT) { /* too long */
        if (skipped || hr_load_block_add_too_long(block, hr_line_reader_number(l->reader))) return HR_OK;
        return hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", l->options->in);
    }
    if (status != HR_OK) {
        if (err != NULL) *err = why;
        return status;
    }
    l->ended = text == NULL;
    return l->ended || skipped ? HR_OK : add_line(l, block, text, nbytes, row, err);
}

/* Lines until the block is full or the file ends. Of a row that is not whole where reading fails nothing is
 * kept. */
static hr_status fill(load *l, hr_load_block *block, hr_error *err) {
    open_row row = {false, false};
    hr_status status = HR_OK;
    while (status == HR_OK && !l->ended && !is_stopped(l) &&
           (row.open || (block->n_lines < l->block_lines && block->nbytes < l->block_nbytes)))
        status = next_line(l, block, &row, err);
    block->next_line = hr_line_reader_number(l->reader) + 1;
    if (row.open && !l->ended && block->n_lines > 0) block->next_line = block->lines[--block->n_lines].number;
    return status;
}

/* Until as many records as were put may have been loaded at the rate. */
static hr_status keep_rate(load *l, hr_error *err) {
    if (l->options->rate == 0) return HR_OK;
    const uint64_t due_ns =
        l->begin_ns + (uint64_t)((double)l->n_lines / (double)l->options->rate * (double)second_ns);
    hr_status status = HR_OK;
    while (status == HR_OK && !is_stopped(l) && hr_clock_ns() < due_ns) {
        uint64_t until_ns = next_look_ns();
        if (until_ns > due_ns) until_ns = due_ns;
        if (!hr_load_pipe_is_empty(l->pipe)) {
            status = take_blocks(l, until_ns, err);
            continue;
        }
        const uint64_t now_ns = hr_clock_ns(), left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        const struct timespec pause = {(time_t)(left_ns / second_ns), (long)(left_ns % second_ns)};
        nanosleep(&pause, NULL); /* an interruption ends it: then it is looked whether to stop */
    }
    return status;
}

static hr_status put_blocks(load *l, hr_error *err) {
    hr_status status = HR_OK;
    while (status == HR_OK && !l->ended) {
        if (is_stopped(l)) return hr_error_set(err, HR_CANCELLED, "%s: interrupted", l->options->in);
        hr_load_block *block = hr_load_pipe_block(l->pipe);
        status = take_blocks(l, block != NULL ? 0 : next_look_ns(), err);
        if (block == NULL || status != HR_OK) continue;
        status = fill(l, block, err);
        l->n_lines += block->n_lines;
        if (block->n_lines > 0) hr_load_pipe_put(l->pipe);
        if (status == HR_OK) status = keep_rate(l, err);
    }
    return status;
}

static hr_status check_from_line(const load *l, hr_error *err) {
    uint64_t n_lines = hr_line_reader_number(l->reader);
    if (l->from_line <= n_lines + 1) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected at least %" PRIu64 " lines, found %" PRIu64,
                        l->options->in, l->from_line - 1, n_lines);
}

/* What was read before an interruption, or before a damaged part of the file, is loaded all the same. */
static hr_status run(load *l, hr_error *err) {
    hr_status status = put_blocks(l, err), finished = HR_OK;
    hr_error why = {HR_OK, ""};
    while (finished == HR_OK && !hr_load_pipe_is_empty(l->pipe))
        finished = take_blocks(l, next_look_ns(), &why);
    if (status == HR_OK || status == HR_CANCELLED) {
        if (finished != HR_OK && err != NULL) *err = why;
        if (finished != HR_OK) status = finished;
    }
    if (status == HR_OK) status = check_from_line(l, err);
    if (status == HR_OK && l->options->resume != NULL) return hr_load_resume_remove(l->options->resume, err);
    if (status == HR_OK) return HR_OK;
    if (l->options->resume != NULL && save(l, &why) != HR_OK && err != NULL) *err = why;
    hr_error_prefix(err, "go on with --from-line %" PRIu64, l->result->resume_line);
    return status;
}

/* --- opening ----------------------------------------------------------------------------------------------
 */

/* The header is a row, which may be several lines. */
static hr_status read_header(load *l, hr_error *err) {
    hr_entity entity;
    hr_load_block block = {.text = NULL};
    open_row row = {false, false};
    hr_status status = HR_OK;
    if (l->options->entity != NULL) status = hr_load_entity_parse(l->options->entity, &entity, err);
    do {
        if (status == HR_OK) status = next_line(l, &block, &row, err);
    } while (status == HR_OK && row.open && !l->ended);
    if (status == HR_OK && (block.n_lines == 0 || block.lines[0].too_long))
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "header: expected one, found none");
    if (status == HR_OK)
        status =
            hr_csv_header_read(block.text, block.lines[0].nbytes, l->options->entity != NULL ? &entity : NULL,
                               l->header_arena, &l->header, err);
    if (status != HR_OK) hr_error_prefix(err, "%s:1", l->options->in);
    hr_load_block_destroy(&block, 0);
    return status;
}

static hr_status open_files(load *l, hr_error *err) {
    const hr_load_options *o = l->options;
    hr_status status = HR_OK;
    if (o->resume != NULL && strcmp(o->in, "-") == 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "resume: expected a file to load from, found stdin");
    if (o->resume != NULL) status = hr_load_resume_read(o->resume, o->in, l->uri->label, &l->from_line, err);
    l->result->resume_line = l->from_line;
    if (status == HR_OK) status = hr_line_reader_open(o->in, HR_LINE_MAX_NBYTES, o->stop, &l->reader, err);
    return status;
}

static hr_status open_store(load *l, hr_error *err) {
    const hr_load_options *o = l->options;
    const hr_record_writer_options options = {
        .n_lanes = o->n_connections > 0 ? o->n_connections : DEFAULT_CONNECTIONS, .ttl_s = o->ttl_s};
    hr_status status = hr_record_writer_open(l->uri, &options, &l->writer, err);
    if (status != HR_OK) return status;
    l->block_lines = l->writer->batch_records * l->writer->n_lanes;
    l->block_nbytes = l->writer->batch_nbytes;
    if (o->rate > 0 && l->block_lines > o->rate / LOOKS_PER_SECOND)
        l->block_lines = o->rate < LOOKS_PER_SECOND ? 1 : o->rate / LOOKS_PER_SECOND;
    return HR_OK;
}

static hr_status open_all(load *l, hr_error *err) {
    const uint32_t n_threads = l->options->n_threads > 0 ? l->options->n_threads : hr_cpu_count();
    l->uri = malloc(sizeof *l->uri);
    l->header_arena = hr_arena_create(HEADER_ARENA_NBYTES);
    if (l->uri == NULL || l->header_arena == NULL)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "load: out of memory");
    if (l->options->entity != NULL && !l->options->csv)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "entity: is of --csv alone: lines of JSON name their own");
    hr_status status = hr_store_uri_parse(l->options->store, l->uri, err);
    if (status == HR_OK) status = open_files(l, err);
    if (status == HR_OK && l->options->csv) {
        const uint64_t from_line = l->from_line > 1 ? l->from_line : 2;
        l->from_line = 1;
        status = read_header(l, err);
        l->from_line = from_line;
    }
    if (status == HR_OK) status = open_store(l, err);
    if (status == HR_OK) status = hr_load_pipe_open(l->writer, l->header, n_threads, &l->pipe, err);
    return status;
}

hr_status hr_features_load(const hr_load_options *options, hr_load_result *result, hr_error *err) {
    *result = (hr_load_result){.resume_line = options->from_line > 1 ? options->from_line : 1};
    load l = {
        .options = options, .result = result, .from_line = result->resume_line, .begin_ns = hr_clock_ns()};
    hr_status status = open_all(&l, err);
    if (status == HR_OK) {
        l.progress = hr_load_progress_begin(options->messages, options->progress);
        status = run(&l, err);
        hr_load_progress_end(&l.progress);
    }
    hr_load_pipe_close(l.pipe);
    if (l.writer != NULL) l.writer->i->close(l.writer);
    hr_line_reader_close(l.reader);
    hr_arena_destroy(l.header_arena);
    free(l.uri);
    result->seconds = (double)(hr_clock_ns() - l.begin_ns) / 1e9;
    return status;
}
