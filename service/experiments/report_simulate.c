/* Deciding for made-up users: see experiments_report.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "service/analysis/statistics.h"
#include "service/experiments/experiments_internal.h"
#include "service/experiments/experiments_report.h"
#include "service/text_table.h"

enum { N_COLUMNS = 6, TABLE_NBYTES = 1 << 28, REQUEST_NBYTES = 1 << 24 };

typedef struct simulation {
    const hr_flag_program *program;
    uint64_t n_users;
    double **counts; /* (n_keys)[n_variations + 1] owned; the last: users that are not in it */
    const hr_experiment **experiments; /* (n_keys) of each key the first */
    size_t n_rows;                     /* variations of those */
} simulation;

static void clear(simulation *s) {
    for (uint32_t k = 0; s->counts != NULL && k < s->program->n_keys; k++) free(s->counts[k]);
    free(s->counts);
    free(s->experiments);
}

static hr_status prepare(simulation *s, hr_error *err) {
    const hr_flag_program *program = s->program;
    s->counts = calloc(program->n_keys + 1, sizeof *s->counts);
    s->experiments = calloc(program->n_keys + 1, sizeof *s->experiments);
    bool failed = s->counts == NULL || s->experiments == NULL;
    for (uint32_t i = 0; i < program->n_experiments && !failed; i++) {
        const hr_experiment *x = program->experiments[i];
        if (s->experiments[x->key_index] != NULL) continue;
        s->experiments[x->key_index] = x;
        s->n_rows += x->n_variations;
        s->counts[x->key_index] = calloc(x->n_variations + 1, sizeof **s->counts);
        failed = s->counts[x->key_index] == NULL;
    }
    return failed ? hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the counts") : HR_OK;
}

/* ---- Users ---- */

/* One that several features ask counts once, by the first of them. */
static void count_runs(simulation *s, const hr_evaluation *e, bool *seen) {
    for (uint32_t i = 0; i < e->n_runs; i++) {
        const hr_run *run = &e->runs[i];
        const uint32_t key = run->experiment->key_index;
        if (!run->in_experiment || seen[key] || run->variation >= s->experiments[key]->n_variations) continue;
        seen[key] = true;
        s->counts[key][run->variation]++;
    }
}

static hr_status simulate_user(simulation *s, const hr_experiments *experiments,
                               const hr_experiments_attributes *attributes, uint64_t number, hr_arena *arena,
                               hr_error *err) {
    char user[32];
    snprintf(user, sizeof user, "user-%" PRIu64, number);
    const hr_experiments_subject subject = {.user_id = user, .attributes = attributes, .draw = number};
    hr_evaluation e;
    hr_status status = hr_experiments__begin(experiments, &subject, arena, NULL, &e, err);
    bool *seen = hr_arena_calloc(arena, s->program->n_keys, sizeof *seen);
    if (status != HR_OK) return status;
    for (uint32_t f = 0; f < HR_RANKING_N_FEATURES; f++) hr_evaluate_flag(&e, f);
    if (e.scratch.failed || seen == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "a user's attributes need too much memory");
    count_runs(s, &e, seen);
    return HR_OK;
}

static hr_status simulate(simulation *s, const hr_experiments *experiments, const char *text, hr_error *err) {
    hr_arena *arena = hr_arena_create(REQUEST_NBYTES), *request = hr_arena_create(REQUEST_NBYTES);
    const hr_experiments_attributes *attributes = NULL;
    hr_status status = HR_OK;
    if (arena == NULL || request == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for a user");
    if (status == HR_OK) status = hr_experiments_read_attributes(text, arena, &attributes, err);
    for (uint64_t i = 0; i < s->n_users && status == HR_OK; i++) {
        hr_arena_reset(request);
        status = simulate_user(s, experiments, attributes, i, request, err);
    }
    hr_arena_destroy(request);
    hr_arena_destroy(arena);
    return status;
}

/* ---- The table ---- */

static double share_of(const hr_experiment *x, uint32_t v) {
    return v < x->n_ranges && x->ranges[v].end > x->ranges[v].start ? x->ranges[v].end - x->ranges[v].start
                                                                    : 0;
}

/* The rows of one experiment; its p-value stands in the first. */
static bool add_experiment(hr_text_table *table, const simulation *s, uint32_t key) {
    const hr_experiment *x = s->experiments[key];
    const double *counts = s->counts[key];
    double *shares = calloc(x->n_variations + 1, sizeof *shares), n_in = 0, covered = 0;
    if (shares == NULL) return false;
    for (uint32_t v = 0; v < x->n_variations; v++) {
        shares[v] = share_of(x, v);
        covered += shares[v];
        n_in += counts[v];
    }
    /* A contextual bandit's leaves have weights of their own. */
    bool tested = x->bandit == NULL && n_in > 0;
    double p = tested ? hr_shares_p_value(counts, shares, x->n_variations) : 0;
    bool ok = true;
    for (uint32_t v = 0; v < x->n_variations; v++) {
        ok &= hr_text_table_cell(table, x->key) && hr_text_table_cell(table, x->variations[v].key) &&
              hr_text_table_cellf(table, "%.0f", counts[v]) &&
              hr_text_table_cellf(table, "%.3f %%", n_in > 0 ? 100 * counts[v] / n_in : 0) &&
              hr_text_table_cellf(table, "%.3f %%", covered > 0 ? 100 * shares[v] / covered : 0) &&
              (v == 0 && tested ? hr_text_table_cellf(table, "%.4f", p) : hr_text_table_cell(table, ""));
    }
    free(shares);
    return ok;
}

static hr_status print(const simulation *s, FILE *out, hr_error *err) {
    static const char *const titles[N_COLUMNS] = {"experiment", "variation", "users",
                                                  "share",      "expected",  "p-value"};
    hr_arena *arena = hr_arena_create(TABLE_NBYTES);
    hr_text_table *table = arena == NULL ? NULL : hr_text_table_create(arena, N_COLUMNS, s->n_rows);
    bool ok = table != NULL;
    for (size_t c = 0; ok && c < N_COLUMNS; c++) hr_text_table_column(table, titles[c], c >= 2);
    for (uint32_t k = 0; ok && k < s->program->n_keys; k++) ok = add_experiment(table, s, k);
    if (ok) {
        hr_text_table_print(table, out);
        fprintf(out,
                "\n%" PRIu64 " users; a p-value below 0.001 says that the shares are not those of the file\n",
                s->n_users);
    }
    hr_arena_destroy(arena);
    return ok ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the table");
}

hr_status hr_experiments_simulate(const hr_experiments *experiments, uint64_t n_users, const char *attributes,
                                  FILE *out, hr_error *err) {
    simulation s = {.program = experiments->program, .n_users = n_users};
    hr_status status = prepare(&s, err);
    if (status == HR_OK) status = simulate(&s, experiments, attributes, err);
    if (status == HR_OK) status = print(&s, out, err);
    clear(&s);
    return status;
}
