/* Why one user gets what: see experiments_report.h. */
#include <string.h>

#include "service/experiments/experiments_internal.h"
#include "service/experiments/experiments_report.h"
#include "service/text_table.h"

enum { MEMORY_NBYTES = 1 << 26 };

typedef struct explanation {
    const hr_flag_program *program;
    hr_evaluation evaluation;
    hr_arena *arena;
    FILE *out;
} explanation;

static void print_value(explanation *x, const hr_js_value *value) {
    hr_js_scratch scratch = {.arena = x->arena};
    hr_js_text text = hr_js_print(value, &scratch);
    hr_text_print_safe(scratch.failed ? "(too large to show)" : text.bytes, x->out);
}

static void print_text(explanation *x, hr_js_text text) {
    const char *copy = hr_arena_strndup(x->arena, text.bytes, text.nbytes);
    hr_text_print_safe(copy == NULL ? "(too large to show)" : copy, x->out);
}

/* The bucket and what it was made of, then the variation. */
static void print_run(explanation *x, const hr_run *run) {
    const hr_experiment *experiment = run->experiment;
    const hr_variation *variation = &experiment->variations[run->variation];
    const double place = hr_run_place(&x->evaluation, run);
    if (place >= 0) {
        const hr_hash_spec *spec = &x->program->hashes[experiment->hash];
        fprintf(x->out, "\n      bucket %.4g of ", place);
        hr_text_print_safe(x->program->hash_attributes[spec->attribute].bytes, x->out);
        fputs(" \"", x->out);
        print_text(x, hr_evaluation_hash_text(&x->evaluation, spec->attribute));
        fputs("\" with seed \"", x->out);
        hr_text_print_safe(spec->seed.bytes, x->out);
        fprintf(x->out, "\", hash version %d", spec->version);
    }
    if (!run->in_experiment) return;
    fprintf(x->out, "\n      variation %u \"", (unsigned)run->variation);
    hr_text_print_safe(variation->key, x->out);
    fputs("\"", x->out);
    if (variation->passthrough) return;
    fputs(": ", x->out);
    print_value(x, variation->value.json);
}

static void step(void *arg, const hr_flag *feature, const hr_rule *rule, const hr_run *run,
                 hr_reason reason) {
    explanation *x = arg;
    fputs("  ", x->out);
    hr_text_print_safe(feature->name, x->out);
    if (rule != NULL) fprintf(x->out, " rules[%u]", (unsigned)(rule - feature->rules));
    if (run != NULL) {
        fputs(" ", x->out);
        hr_text_print_safe(run->experiment->key, x->out);
    }
    fprintf(x->out, ": %s", hr_reason_text(reason));
    if (run != NULL) print_run(x, run);
    if (reason == HR_REASON_FORCED_VALUE || reason == HR_REASON_DEFAULT_VALUE) {
        fputs(": ", x->out);
        print_value(x, rule != NULL ? rule->force.json : feature->fallback.json);
    }
    fputc('\n', x->out);
}

/* ---- What comes of it ---- */

static void print_outcome(explanation *x, hr_ranking_feature which, const char *name,
                          const hr_js_value *(*part)(const hr_js_value *value)) {
    const hr_flag *flags = x->program->features;
    const hr_js_value *own = hr_evaluate_flag(&x->evaluation, which)->value->json;
    const hr_js_value *all = hr_evaluate_flag(&x->evaluation, HR_RANKING_ALL)->value->json;
    bool is_own = hr_js_kind_of(own) != HR_JS_NULL;
    const hr_js_value *value = is_own ? own : part(all);
    fprintf(x->out, "%s: ", name);
    if (hr_js_kind_of(value) == HR_JS_NULL) {
        fputs("nothing decided\n", x->out);
        return;
    }
    print_value(x, value);
    fputs(", by ", x->out);
    hr_text_print_safe(flags[is_own ? which : HR_RANKING_ALL].name, x->out);
    fputc('\n', x->out);
}

#define PART(name)                                                                                           \
    static const hr_js_value *part_##name(const hr_js_value *value) {                                        \
        return hr_js_get(value, hr_js_text_of(#name, sizeof #name - 1));                                     \
    }
PART(model)
PART(fusion)
PART(tasks)
PART(shadow)

static hr_status explain(explanation *x, const hr_experiments *experiments,
                         const hr_experiments_subject *subject, hr_error *err) {
    const hr_trace trace = {.step = step, .arg = x};
    hr_status status = hr_experiments__begin(experiments, subject, x->arena, &trace, &x->evaluation, err);
    if (status != HR_OK) return status;
    for (uint32_t f = 0; f < HR_RANKING_N_FEATURES; f++)
        if (x->program->features[f].known) hr_evaluate_flag(&x->evaluation, f);
    x->evaluation.trace = NULL;
    fputc('\n', x->out);
    print_outcome(x, HR_RANKING_MODEL, "model", part_model);
    print_outcome(x, HR_RANKING_FUSION, "fusion", part_fusion);
    print_outcome(x, HR_RANKING_TASKS, "tasks", part_tasks);
    print_outcome(x, HR_RANKING_SHADOW, "shadow", part_shadow);
    if (!x->evaluation.scratch.failed) return HR_OK;
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the attributes need too much memory");
}

hr_status hr_experiments_explain(const hr_experiments *experiments, const char *user_id,
                                 const char *attributes, FILE *out, hr_error *err) {
    explanation x = {.program = experiments->program, .arena = hr_arena_create(MEMORY_NBYTES), .out = out};
    hr_experiments_subject subject = {.user_id = user_id};
    if (x.arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for an explanation");
    hr_status status = hr_experiments_read_attributes(attributes, x.arena, &subject.attributes, err);
    if (status == HR_OK) {
        fputs("user ", out);
        hr_text_print_safe(user_id, out);
        fprintf(out, ", attributes ");
        hr_text_print_safe(attributes[0] == '\0' ? "{}" : attributes, out);
        fprintf(out, ", version %s\n\n", hr_experiments_version(experiments));
        status = explain(&x, experiments, &subject, err);
    }
    hr_arena_destroy(x.arena);
    return status;
}
