/* A load's blocks on their way: see load_pipe.h. Block number n lies in slot n % n_slots. */
#include "features/load_pipe.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"

enum { LINE_ARENA_NBYTES = 512 << 20 };

typedef struct slot {
    hr_load_block block;
    bool read; /* its batches are whole */
    size_t n_lanes_written;
} slot;

typedef struct worker {
    hr_load_pipe *pipe;
    size_t lane; /* of a lane's thread */
    pthread_t thread;
    hr_block_reader reader; /* of a reader's thread */
} worker;

struct hr_load_pipe {
    hr_record_writer *writer;
    const hr_csv_header *csv;
    slot *slots; /* (n_slots) */
    size_t n_slots;
    worker *readers, *lanes; /* (n_readers), (n_lanes) that were started */
    size_t n_readers, n_lanes;
    pthread_mutex_t blocks_lock; /* guards all below, and slots' states */
    pthread_cond_t blocks_changed;
    uint64_t n_put, n_begun, n_taken; /* blocks put, begun to be read, given back */
    bool closing;
    hr_error failure; /* code HR_OK, or why it goes no further */
};

static slot *slot_of(hr_load_pipe *pipe, uint64_t number) {
    return &pipe->slots[number % pipe->n_slots];
}

static void fail(hr_load_pipe *pipe, const hr_error *why) {
    pthread_mutex_lock(&pipe->blocks_lock);
    if (pipe->failure.code == HR_OK) pipe->failure = *why;
    pthread_cond_broadcast(&pipe->blocks_changed);
    pthread_mutex_unlock(&pipe->blocks_lock);
}

static bool is_over(const hr_load_pipe *pipe) {
    return pipe->closing || pipe->failure.code != HR_OK;
}

/* The next block that nobody reads yet; NULL: it is over. */
static slot *begin_reading(hr_load_pipe *pipe) {
    pthread_mutex_lock(&pipe->blocks_lock);
    while (!is_over(pipe) && pipe->n_begun == pipe->n_put)
        pthread_cond_wait(&pipe->blocks_changed, &pipe->blocks_lock);
    slot *of = is_over(pipe) ? NULL : slot_of(pipe, pipe->n_begun++);
    pthread_mutex_unlock(&pipe->blocks_lock);
    return of;
}

static void *read_blocks(void *arg) {
    worker *w = arg;
    hr_load_pipe *pipe = w->pipe;
    slot *of;
    while ((of = begin_reading(pipe)) != NULL) {
        hr_error why = {HR_OK, ""};
        if (hr_load_block_read(&of->block, &w->reader, &why) != HR_OK) {
            fail(pipe, &why);
            break;
        }
        pthread_mutex_lock(&pipe->blocks_lock);
        of->read = true;
        pthread_cond_broadcast(&pipe->blocks_changed);
        pthread_mutex_unlock(&pipe->blocks_lock);
    }
    return NULL;
}

/* Block `number`, once it has been read; NULL: it is over. */
static slot *begin_writing(hr_load_pipe *pipe, uint64_t number) {
    pthread_mutex_lock(&pipe->blocks_lock);
    while (!is_over(pipe) && (number >= pipe->n_put || !slot_of(pipe, number)->read))
        pthread_cond_wait(&pipe->blocks_changed, &pipe->blocks_lock);
    slot *of = is_over(pipe) ? NULL : slot_of(pipe, number);
    pthread_mutex_unlock(&pipe->blocks_lock);
    return of;
}

static void *write_blocks(void *arg) {
    worker *w = arg;
    hr_load_pipe *pipe = w->pipe;
    slot *of;
    for (uint64_t number = 0; (of = begin_writing(pipe, number)) != NULL; number++) {
        const hr_record_batch *batch = &of->block.batches[w->lane];
        hr_error why = {HR_OK, ""};
        if (batch->n_records > 0 && pipe->writer->i->write(pipe->writer, w->lane, batch, &why) != HR_OK) {
            fail(pipe, &why);
            break;
        }
        pthread_mutex_lock(&pipe->blocks_lock);
        if (++of->n_lanes_written == pipe->writer->n_lanes) pthread_cond_broadcast(&pipe->blocks_changed);
        pthread_mutex_unlock(&pipe->blocks_lock);
    }
    return NULL;
}

/* --- the loader's thread ----------------------------------------------------------------------------------
 */

hr_load_block *hr_load_pipe_block(hr_load_pipe *pipe) {
    if (pipe->n_put - pipe->n_taken == pipe->n_slots) return NULL; /* both are written by this thread alone */
    return &slot_of(pipe, pipe->n_put)->block;
}

void hr_load_pipe_put(hr_load_pipe *pipe) {
    pthread_mutex_lock(&pipe->blocks_lock);
    pipe->n_put++;
    pthread_cond_broadcast(&pipe->blocks_changed);
    pthread_mutex_unlock(&pipe->blocks_lock);
}

bool hr_load_pipe_is_empty(const hr_load_pipe *pipe) {
    return pipe->n_put == pipe->n_taken;
}

hr_status hr_load_pipe_take(hr_load_pipe *pipe, uint64_t until_ns, hr_load_block **block, hr_error *err) {
    const struct timespec until = {(time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000)};
    hr_status status = HR_OK;
    *block = NULL;
    if (hr_load_pipe_is_empty(pipe)) return HR_OK;
    pthread_mutex_lock(&pipe->blocks_lock);
    slot *of = slot_of(pipe, pipe->n_taken);
    bool late = false;
    while (of->n_lanes_written < pipe->writer->n_lanes && pipe->failure.code == HR_OK && !late)
        late = pthread_cond_timedwait(&pipe->blocks_changed, &pipe->blocks_lock, &until) == ETIMEDOUT;
    if (of->n_lanes_written == pipe->writer->n_lanes) *block = &of->block;
    if (*block == NULL && pipe->failure.code != HR_OK) {
        status = pipe->failure.code;
        if (err != NULL) *err = pipe->failure;
    }
    pthread_mutex_unlock(&pipe->blocks_lock);
    return status;
}

void hr_load_pipe_give_back(hr_load_pipe *pipe) {
    slot *of = slot_of(pipe, pipe->n_taken);
    hr_load_block_empty(&of->block, pipe->writer->n_lanes);
    pthread_mutex_lock(&pipe->blocks_lock);
    of->read = false;
    of->n_lanes_written = 0;
    pipe->n_taken++;
    pthread_mutex_unlock(&pipe->blocks_lock);
}

/* --- opening and closing ----------------------------------------------------------------------------------
 */

static hr_status out_of_memory(hr_error *err) {
    return hr_error_set(err, HR_OUT_OF_MEMORY, "load: out of memory");
}

static hr_status start_reader(hr_load_pipe *pipe, hr_error *err) {
    worker *w = &pipe->readers[pipe->n_readers];
    w->pipe = pipe;
    w->reader = (hr_block_reader){
        .writer = pipe->writer, .csv = pipe->csv, .arena = hr_arena_create(LINE_ARENA_NBYTES)};
    if (w->reader.arena == NULL) return out_of_memory(err);
    hr_status status = hr_thread_start(&w->thread, "hr-load-read", read_blocks, w, err);
    if (status == HR_OK)
        pipe->n_readers++;
    else
        hr_arena_destroy(w->reader.arena);
    return status;
}

static hr_status start_lane(hr_load_pipe *pipe, hr_error *err) {
    worker *w = &pipe->lanes[pipe->n_lanes];
    w->pipe = pipe;
    w->lane = pipe->n_lanes;
    hr_status status = hr_thread_start(&w->thread, "hr-load-write", write_blocks, w, err);
    pipe->n_lanes += status == HR_OK;
    return status;
}

static hr_status allocate(hr_load_pipe *pipe, size_t n_readers, hr_error *err) {
    const size_t n_lanes = pipe->writer->n_lanes;
    pipe->n_slots = n_readers + 4;
    pipe->slots = calloc(pipe->n_slots, sizeof *pipe->slots);
    pipe->readers = calloc(n_readers, sizeof *pipe->readers);
    pipe->lanes = calloc(n_lanes, sizeof *pipe->lanes);
    bool whole = pipe->slots != NULL && pipe->readers != NULL && pipe->lanes != NULL;
    for (size_t i = 0; whole && i < pipe->n_slots; i++)
        whole = hr_load_block_create(&pipe->slots[i].block, n_lanes);
    return whole ? HR_OK : out_of_memory(err);
}

static void init_locks(hr_load_pipe *pipe) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* that of hr_clock_ns */
    pthread_cond_init(&pipe->blocks_changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&pipe->blocks_lock, NULL);
}

hr_status hr_load_pipe_open(hr_record_writer *writer, const hr_csv_header *csv, size_t n_readers,
                            hr_load_pipe **pipe, hr_error *err) {
    *pipe = NULL;
    hr_load_pipe *made = calloc(1, sizeof *made);
    if (made == NULL) return out_of_memory(err);
    made->writer = writer;
    made->csv = csv;
    init_locks(made);
    hr_status status = allocate(made, n_readers, err);
    for (size_t i = 0; i < n_readers && status == HR_OK; i++) status = start_reader(made, err);
    for (size_t i = 0; i < writer->n_lanes && status == HR_OK; i++) status = start_lane(made, err);
    if (status == HR_OK)
        *pipe = made;
    else
        hr_load_pipe_close(made);
    return status;
}

void hr_load_pipe_close(hr_load_pipe *pipe) {
    if (pipe == NULL) return;
    pthread_mutex_lock(&pipe->blocks_lock);
    pipe->closing = true;
    pthread_cond_broadcast(&pipe->blocks_changed);
    pthread_mutex_unlock(&pipe->blocks_lock);
    for (size_t i = 0; i < pipe->n_lanes; i++) pthread_join(pipe->lanes[i].thread, NULL);
    for (size_t i = 0; i < pipe->n_readers; i++) {
        pthread_join(pipe->readers[i].thread, NULL);
        hr_arena_destroy(pipe->readers[i].reader.arena);
        hr_load_packer_clear(&pipe->readers[i].reader.packer);
    }
    for (size_t i = 0; pipe->slots != NULL && i < pipe->n_slots; i++)
        hr_load_block_destroy(&pipe->slots[i].block, pipe->writer->n_lanes);
    pthread_cond_destroy(&pipe->blocks_changed);
    pthread_mutex_destroy(&pipe->blocks_lock);
    free(pipe->lanes);
    free(pipe->readers);
    free(pipe->slots);
    free(pipe);
}
