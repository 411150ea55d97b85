/* `homerank rank`: one Rank call, printed as a table or as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "proto/json.h"
#include "service/client.h"
#include "service/commands.h"
#include "service/text_table.h"

enum { CALL_ARENA_CAP_NBYTES = 256 << 20 };

static hr_status out_of_memory(hr_error *err) {
    return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the call");
}

/* "a,b,c" as a list of its parts; an empty one is the server's to refuse. NULL when out of memory. */
static json_t *items_json(const char *text) {
    json_t *items = json_array();
    for (bool more = true; more && items;) {
        size_t nbytes = strcspn(text, ",");
        if (json_array_append_new(items, json_stringn(text, nbytes)) != 0) {
            json_decref(items);
            items = NULL;
        }
        more = text[nbytes] == ',';
        text += nbytes + 1;
    }
    return items;
}

/* One --context flag into the object. Its value is JSON where it reads as JSON, else a string. */
static hr_status add_context(json_t *object, const char *text, hr_error *err) {
    const char *equals = strchr(text, '='); /* the options' table sees to it */
    char *key = strndup(text, (size_t)(equals - text));
    if (!key) return out_of_memory(err);
    json_t *value = NULL;
    if (hr_json_parse(equals + 1, strlen(equals + 1), &value, NULL)) value = json_string(equals + 1);
    int rc = json_object_set_new(object, key, value);
    free(key);
    return rc == 0 ? HR_OK : out_of_memory(err);
}

/* The request in its JSON form, which the one reader of that form turns into a message. */
static hr_status make_request(const hr_options *options, hr_arena *arena, Homerank__V1__RankRequest **request,
                              hr_error *err) {
    json_t *context = json_object();
    json_t *value = context ? json_pack("{s:s, s:o, s:O, s:I, s:s}", "user_id", options->user, "item_ids",
                                        items_json(options->items), "context", context, "top_k",
                                        (json_int_t)options->top_k, "model", options->model)
                            : NULL;
    hr_status status = value ? HR_OK : out_of_memory(err);
    for (size_t i = 0; i < options->context.n && !status; i++)
        status = add_context(context, options->context.values[i], err);
    if (!status) status = hr_json_to_request(value, arena, request, err);
    json_decref(value);
    json_decref(context);
    return status;
}

static hr_status print_json(const Homerank__V1__RankResponse *response, hr_error *err) {
    json_t *value = hr_json_from_response(response, true);
    if (!value) return out_of_memory(err);
    int rc = json_dumpf(value, stdout, HR_JSON_RESPONSE_FLAGS);
    json_decref(value);
    if (rc != 0) return hr_error_set(err, HR_IO, "stdout: cannot write the answer");
    putchar('\n');
    return HR_OK;
}

/* A server's answer is from outside: its lists must fit together before they are read side by side. */
static hr_status check_shape(const Homerank__V1__RankResponse *r, hr_error *err) {
    bool fits = r->n_scores == r->n_item_ids &&
                (r->n_tasks == 0
                     ? r->n_task_scores == 0
                     : r->n_task_scores % r->n_tasks == 0 && r->n_task_scores / r->n_tasks == r->n_item_ids);
    if (fits) return HR_OK;
    return hr_error_set(err, HR_INTERNAL,
                        "the answer does not fit together: %zu items, %zu scores, %zu tasks, %zu task scores",
                        r->n_item_ids, r->n_scores, r->n_tasks, r->n_task_scores);
}

static bool add_number(hr_text_table *table, double value) {
    if (!isfinite(value)) return hr_text_table_cell(table, "not finite");
    return hr_text_table_cellf(table, fabs(value) < 1e5 ? "%.4f" : "%.5g", value);
}

static hr_status print_ranking(const Homerank__V1__RankResponse *r, hr_arena *arena, hr_error *err) {
    hr_text_table *table = hr_text_table_create(arena, 3 + r->n_tasks, r->n_item_ids);
    if (!table) return out_of_memory(err);
    hr_text_table_column(table, "rank", true);
    hr_text_table_column(table, "item", false);
    hr_text_table_column(table, "score", true);
    for (size_t t = 0; t < r->n_tasks; t++) hr_text_table_column(table, r->tasks[t], true);
    bool ok = true;
    for (size_t i = 0; i < r->n_item_ids && ok; i++) {
        ok = hr_text_table_cellf(table, "%zu", i + 1) && hr_text_table_cell(table, r->item_ids[i]) &&
             add_number(table, (double)r->scores[i]);
        for (size_t t = 0; t < r->n_tasks && ok; t++)
            ok = add_number(table, (double)r->task_scores[i * r->n_tasks + t]);
    }
    if (!ok) return out_of_memory(err);
    hr_text_table_print(table, stdout);
    return HR_OK;
}

static void print_duration(const char *what, uint64_t us, bool last) {
    if (us < 1000)
        printf("%s %llu µs", what, (unsigned long long)us);
    else
        printf("%s %.1f ms", what, (double)us / 1e3);
    fputs(last ? "\n" : ", ", stdout);
}

static hr_status print_answer(const hr_options *options, const Homerank__V1__RankResponse *r, hr_arena *arena,
                              hr_error *err) {
    hr_status status = check_shape(r, err);
    if (status) return status;
    fputs("user ", stdout);
    hr_text_print_safe(options->user, stdout);
    fputs(", model ", stdout);
    hr_text_print_safe(r->model, stdout);
    fputs("\n\n", stdout);
    status = print_ranking(r, arena, err);
    if (status) return status;
    putchar('\n');
    if (r->timing) {
        print_duration("queue", r->timing->queue_us, false);
        print_duration("features", r->timing->features_us, false);
        print_duration("model", r->timing->model_us, false);
        print_duration("total", r->timing->total_us, true);
    }
    for (size_t i = 0; i < r->n_warnings; i++) {
        fputs("warning: ", stdout);
        hr_text_print_safe(r->warnings[i], stdout);
        putchar('\n');
    }
    return HR_OK;
}

int hr_command_rank(const hr_options *options) {
    hr_error err;
    hr_client *client = NULL;
    Homerank__V1__RankRequest *request = NULL;
    Homerank__V1__RankResponse *response = NULL;
    hr_arena *arena = hr_arena_create(CALL_ARENA_CAP_NBYTES);
    hr_status status = arena ? HR_OK : out_of_memory(&err);
    if (!status) status = make_request(options, arena, &request, &err);
    if (!status) status = hr_client_create(options->target, &client, &err);
    if (!status) status = hr_client_rank(client, request, options->timeout_ms, arena, &response, &err);
    if (!status)
        status = options->json ? print_json(response, &err) : print_answer(options, response, arena, &err);
    hr_client_destroy(client);
    hr_arena_destroy(arena);
    return status ? hr_command_fail(&err) : 0;
}
