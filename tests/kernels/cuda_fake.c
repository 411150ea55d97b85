/* See cuda_fake.h. */
#include "tests/kernels/cuda_fake.h"

#undef NDEBUG /* what the fake checks holds in an optimised build too */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAUNCHES = 4096, FAILED = 999, NO_MEMORY = 2, MOST_TOUCHED = 1 << 22 };

typedef struct fake_graph {
    int device;
    uint32_t n;
    hr_cuda_launch launches[];
} fake_graph;

typedef struct fake_stream {
    int device;
    bool capturing;
    uint32_t n;
    hr_cuda_launch launches[MOST_LAUNCHES];
} fake_stream;

hr_cuda_fake hr_cuda_fake_state;
static hr_cuda_fake *const fake = &hr_cuda_fake_state;

void hr_cuda_fake_reset(void) {
    *fake = (hr_cuda_fake){.n_devices = 1, .major = 9, .free_nbytes = (size_t)1 << 40, .n_sms = 132};
}

/* Counts a call; whether it is one that fails. */
static bool fails(void) {
    uint64_t call = ++fake->n_calls;
    if (fake->fail_at == 0) return false;
    return fake->fail_for_good ? call >= fake->fail_at : call == fake->fail_at;
}

static int device_count(int *count) {
    if (fails()) return FAILED;
    *count = fake->n_devices;
    return 0;
}

static int set_device(int device) {
    if (fails()) return FAILED;
    assert(device >= 0 && device < fake->n_devices);
    fake->device = device;
    return 0;
}

static int device_info(int device, hr_cuda_device_info *info) {
    if (fails()) return FAILED;
    snprintf(info->name, sizeof info->name, "fake %d", device);
    info->major = fake->major;
    info->minor = device + 1 == fake->n_devices ? fake->minor_of_last : 0;
    info->n_sms = (int)fake->n_sms;
    return 0;
}

static int prepare(void) {
    return fails() ? FAILED : 0;
}

static int memory(size_t *free_nbytes, size_t *total_nbytes) {
    if (fails()) return FAILED;
    *free_nbytes = *total_nbytes = fake->free_nbytes;
    return 0;
}

/* Of large memory only so much is touched: the rest is zeros that cost nothing until they are written. */
static size_t touched(size_t nbytes) {
    return nbytes < MOST_TOUCHED ? nbytes : MOST_TOUCHED;
}

/* Begins with NaNs, as what an earlier owner left might be. */
static int fake_malloc(void **result, size_t nbytes) {
    if (fails()) return NO_MEMORY;
    *result = calloc(nbytes, 1);
    assert(*result != NULL);
    memset(*result, 0xFF, touched(nbytes));
    fake->n_live++;
    return 0;
}

/* Freeing works whatever happened before; its error is nobody's concern. */
static int fake_free(void *result) {
    bool failed = fails();
    free(result);
    fake->n_live--;
    return failed ? FAILED : 0;
}

static int copy(void *to, const void *from, size_t nbytes, void *stream) {
    assert(stream != NULL);
    if (fails()) return FAILED;
    if (nbytes > 0) memcpy(to, from, nbytes);
    return 0;
}

static int clear(void *result, size_t nbytes, void *stream) {
    assert(stream != NULL);
    if (fails()) return FAILED;
    memset(result, 0, touched(nbytes)); /* called on fresh memory */
    return 0;
}

static int stream_create(void **stream) {
    if (fails()) return FAILED;
    fake_stream *created = calloc(1, sizeof *created);
    assert(created != NULL);
    created->device = fake->device;
    *stream = created;
    fake->n_live++;
    return 0;
}

static int stream_wait(void *stream) {
    assert(stream != NULL);
    return fails() ? FAILED : 0;
}

static int event_create(void **event) {
    return fake_malloc(event, 1);
}

static int event_record(void *event, void *stream) {
    assert(event != NULL && stream != NULL);
    return fails() ? FAILED : 0;
}

static int event_wait(void *event) {
    assert(event != NULL);
    return fails() ? FAILED : 0;
}

static int capture_begin(void *stream) {
    fake_stream *s = stream;
    if (fails()) return FAILED;
    s->capturing = true;
    s->n = 0;
    return 0;
}

static int capture_end(void *stream, void **graph) {
    fake_stream *s = stream;
    assert(s->capturing);
    s->capturing = false;
    if (fails()) return FAILED;
    fake_graph *made = calloc(1, sizeof *made + s->n * sizeof s->launches[0]);
    assert(made != NULL);
    made->device = s->device;
    made->n = s->n;
    memcpy(made->launches, s->launches, s->n * sizeof s->launches[0]);
    *graph = made;
    fake->n_live++;
    return 0;
}

static int graph_launch(void *graph, void *stream) {
    const fake_graph *g = graph;
    assert(stream != NULL && g != NULL && fake->device == g->device);
    if (fails()) return FAILED;
    for (uint32_t i = 0; i < g->n; i++) hr_cuda_emulate(&g->launches[i]);
    fake->n_launches += g->n;
    fake->n_graphs_run++;
    fake->used |= UINT32_C(1) << g->device;
    return 0;
}

static int launch(const hr_cuda_launch *l, void *stream) {
    fake_stream *s = stream;
    assert(s->capturing && s->n < MOST_LAUNCHES && s->device == fake->device);
    if (fails()) return FAILED;
    s->launches[s->n++] = *l;
    return 0;
}

static const char *error_text(int code) {
    return code == NO_MEMORY ? "out of memory" : "an injected failure";
}

const hr_cuda_runtime hr_cuda_fake_runtime = {
    .device_count = device_count,
    .set_device = set_device,
    .device_info = device_info,
    .prepare = prepare,
    .memory = memory,
    .malloc = fake_malloc,
    .free = fake_free,
    .host_malloc = fake_malloc,
    .host_free = fake_free,
    .copy_in = copy,
    .copy_out = copy,
    .clear = clear,
    .stream_create = stream_create,
    .stream_destroy = fake_free,
    .stream_wait = stream_wait,
    .event_create = event_create,
    .event_destroy = fake_free,
    .event_record = event_record,
    .event_wait = event_wait,
    .capture_begin = capture_begin,
    .capture_end = capture_end,
    .graph_launch = graph_launch,
    .graph_destroy = fake_free,
    .launch = launch,
    .error_text = error_text,
};
