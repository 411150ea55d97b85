/* What is sent: see load_requests.h. */
#include "service/load_requests.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/text_file.h"
#include "proto/json.h"
#include "service/load_random.h"
#include "service/load_text.h"

enum {
    PACKED_CAP_NBYTES = 256 << 20, /* all requests together */
    SCRATCH_CAP_NBYTES = 256 << 20
};

struct hr_load_requests {
    hr_arena *arena;      /* of the packed bytes */
    hr_load_request *all; /* (n) */
    uint32_t n;
};

static hr_status out_of_memory(hr_error *err) {
    return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the requests");
}

static hr_status add_request(hr_load_requests *requests, const Homerank__V1__RankRequest *request,
                             hr_error *err) {
    size_t nbytes = protobuf_c_message_get_packed_size(&request->base);
    uint8_t *data = hr_arena_alloc(requests->arena, nbytes);
    if (data == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                            "%" PRIu32 " requests fill the %d MiB kept for them: expected fewer (--requests)",
                            requests->n, PACKED_CAP_NBYTES >> 20);
    protobuf_c_message_pack(&request->base, data);
    requests->all[requests->n++] =
        (hr_load_request){.data = data, .nbytes = nbytes, .n_items = (uint32_t)request->n_item_ids};
    return HR_OK;
}

static void set_common(const hr_load_requests_options *options, Homerank__V1__RankRequest *request) {
    if (options->model[0] != '\0') request->model = (char *)options->model;
    if (options->priority != 0) request->priority = options->priority;
}

/* ---- From a file ---- */

static hr_status add_line(hr_load_requests *requests, const hr_load_requests_options *options,
                          const char *line, size_t nbytes, hr_arena *scratch, hr_error *err) {
    json_t *value = NULL;
    Homerank__V1__RankRequest *request = NULL;
    hr_status status = hr_json_parse(line, nbytes, &value, err);
    if (status == HR_OK) status = hr_json_to_request(value, scratch, &request, err);
    json_decref(value);
    if (status != HR_OK) return status;
    set_common(options, request);
    return add_request(requests, request, err);
}

static hr_status read_lines(hr_load_requests *requests, const hr_load_requests_options *options,
                            hr_line_reader *reader, hr_arena *scratch, hr_error *err) {
    while (requests->n < options->n_requests) {
        const char *line;
        size_t nbytes;
        hr_status status = hr_line_reader_next(reader, &line, &nbytes, err);
        if (status == HR_OK && line == NULL) break;
        hr_arena_reset(scratch);
        if (status == HR_OK) status = add_line(requests, options, line, nbytes, scratch, err);
        if (status == HR_INVALID_ARGUMENT)
            return hr_error_prefix(err, "%s:%" PRIu64, options->in, hr_line_reader_number(reader));
        if (status != HR_OK) return status;
    }
    if (requests->n > 0) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected requests, found none", options->in);
}

static hr_status read_file(hr_load_requests *requests, const hr_load_requests_options *options,
                           hr_error *err) {
    hr_line_reader *reader = NULL;
    hr_arena *scratch = hr_arena_create(SCRATCH_CAP_NBYTES);
    hr_status status = scratch == NULL ? out_of_memory(err) : HR_OK;
    if (status == HR_OK) status = hr_line_reader_open(options->in, HR_LINE_MAX_NBYTES, NULL, &reader, err);
    if (status == HR_OK) status = read_lines(requests, options, reader, scratch, err);
    hr_line_reader_close(reader);
    hr_arena_destroy(scratch);
    return status;
}

/* ---- Made up ---- */

/* All that the requests are drawn with. */
typedef struct maker {
    hr_load_random random;
    hr_load_range users, items;
    hr_load_zipf user_zipf, item_zipf;
    hr_load_sizes sizes;
    uint32_t *taken_by;           /* (items.n) the number, from 1, of the last request that has the item */
    char (*ids)[HR_LOAD_ID_SIZE]; /* (sizes.max) */
    char **item_ids;              /* (sizes.max) into ids */
} maker;

static hr_status maker_init(maker *m, const hr_load_requests_options *options, hr_error *err) {
    double zipf = 0;
    if (hr_load_read_range(options->users, &m->users, err) != HR_OK) return hr_error_prefix(err, "--users");
    if (hr_load_read_range(options->item_ids, &m->items, err) != HR_OK)
        return hr_error_prefix(err, "--item-ids");
    if (hr_load_read_sizes(options->sizes, &m->sizes, err) != HR_OK) return hr_error_prefix(err, "--items");
    if (hr_load_read_decimal(options->zipf, 0, HR_LOAD_MAX_ZIPF, &zipf, err) != HR_OK)
        return hr_error_prefix(err, "--zipf");
    if (m->sizes.max > m->items.n)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "--item-ids: expected at least the %" PRIu32
                            " ids of a request's items, found %" PRIu64,
                            m->sizes.max, m->items.n);
    hr_load_zipf_init(&m->user_zipf, m->users.n, zipf);
    hr_load_zipf_init(&m->item_zipf, m->items.n, zipf);
    m->random.state = options->seed;
    return HR_OK;
}

/* The next request of n_items distinct items; an item drawn again gives way to the next free one. */
static hr_status make_request(maker *m, hr_load_requests *requests, const hr_load_requests_options *options,
                              hr_error *err) {
    char user[HR_LOAD_ID_SIZE], request_id[24];
    Homerank__V1__RankRequest request = HOMERANK__V1__RANK_REQUEST__INIT;
    const uint32_t n_items = m->sizes.values[hr_load_random_next(&m->random) % m->sizes.n];
    const uint32_t number = requests->n + 1;
    for (uint32_t i = 0; i < n_items; i++) {
        uint64_t item = hr_load_zipf_draw(&m->item_zipf, &m->random);
        while (m->taken_by[item] == number) item = (item + 1) % m->items.n;
        m->taken_by[item] = number;
        hr_load_range_id(&m->items, item, m->ids[i]);
    }
    hr_load_range_id(&m->users, hr_load_zipf_draw(&m->user_zipf, &m->random), user);
    snprintf(request_id, sizeof request_id, "load-%" PRIu32, number);
    request.request_id = request_id;
    request.user_id = user;
    request.item_ids = m->item_ids;
    request.n_item_ids = n_items;
    set_common(options, &request);
    return add_request(requests, &request, err);
}

static hr_status make_all(hr_load_requests *requests, const hr_load_requests_options *options,
                          hr_error *err) {
    maker m = {0};
    hr_status status = maker_init(&m, options, err);
    if (status != HR_OK) return status;
    m.taken_by = calloc(m.items.n, sizeof *m.taken_by);
    m.ids = calloc(m.sizes.max, sizeof *m.ids);
    m.item_ids = calloc(m.sizes.max, sizeof *m.item_ids);
    if (m.taken_by == NULL || m.ids == NULL || m.item_ids == NULL) status = out_of_memory(err);
    for (uint32_t i = 0; i < m.sizes.max && status == HR_OK; i++) m.item_ids[i] = m.ids[i];
    while (status == HR_OK && requests->n < options->n_requests)
        status = make_request(&m, requests, options, err);
    free(m.item_ids);
    free(m.ids);
    free(m.taken_by);
    return status;
}

hr_status hr_load_requests_create(const hr_load_requests_options *options, hr_load_requests **requests,
                                  hr_error *err) {
    hr_load_requests *made = calloc(1, sizeof *made);
    if (made == NULL) return out_of_memory(err);
    made->arena = hr_arena_create(PACKED_CAP_NBYTES);
    made->all = calloc(options->n_requests, sizeof *made->all);
    hr_status status = made->arena == NULL || made->all == NULL ? out_of_memory(err) : HR_OK;
    if (status == HR_OK)
        status = options->in[0] != '\0' ? read_file(made, options, err) : make_all(made, options, err);
    if (status != HR_OK) {
        hr_load_requests_destroy(made);
        return status;
    }
    *requests = made;
    return HR_OK;
}

void hr_load_requests_destroy(hr_load_requests *requests) {
    if (requests == NULL) return;
    free(requests->all);
    hr_arena_destroy(requests->arena);
    free(requests);
}

uint32_t hr_load_requests_count(const hr_load_requests *requests) {
    return requests->n;
}

const hr_load_request *hr_load_requests_get(const hr_load_requests *requests, uint64_t index) {
    return &requests->all[index % requests->n];
}
