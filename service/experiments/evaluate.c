/* Evaluating features and experiments: see evaluate.h. The order of the steps, and their words, are the
 * specification's. */
#include "service/experiments/evaluate.h"

#include <string.h>

enum { MAX_PREREQUISITE_DEPTH = 128 }; /* a longer chain of prerequisites counts as a cycle */

static const uint32_t UNKNOWN_BUCKET = UINT32_MAX;

const char *hr_reason_text(hr_reason reason) {
    static const char *const texts[] = {
#define HR_REASON_TEXT(name, text) text,
        HR_REASON_MAP(HR_REASON_TEXT)
#undef HR_REASON_TEXT
    };
    return texts[reason];
}

bool hr_evaluation_begin(hr_evaluation *evaluation, const hr_flag_program *program, const hr_subject *subject,
                         hr_arena *arena, const hr_trace *trace) {
    hr_evaluation *e = evaluation;
    *e =
        (hr_evaluation){.program = program, .subject = *subject, .scratch = {.arena = arena}, .trace = trace};
    e->hash_values = hr_arena_calloc(arena, program->n_hash_attributes, sizeof *e->hash_values);
    e->buckets = hr_arena_alloc(arena, program->n_hashes * sizeof *e->buckets);
    e->results = hr_arena_calloc(arena, program->n_features, sizeof *e->results);
    e->runs = hr_arena_alloc(arena, program->n_experiments * sizeof *e->runs);
    const hr_js_value **resolved = hr_arena_alloc(arena, program->n_paths * sizeof *resolved);
    if (e->hash_values == NULL || e->buckets == NULL || e->results == NULL || e->runs == NULL ||
        resolved == NULL)
        return false;
    for (uint32_t i = 0; i < program->n_hashes; i++) e->buckets[i] = UNKNOWN_BUCKET;
    for (uint32_t i = 0; i < program->n_paths; i++) resolved[i] = &hr_unresolved;
    if (subject->user_id != NULL) {
        e->user_id.kind = HR_JS_STRING;
        e->user_id.text = hr_js_text_of(subject->user_id, strlen(subject->user_id));
    }
    e->attributes = (hr_attributes){.object = subject->attributes,
                                    .user_id = subject->user_id == NULL ? NULL : &e->user_id,
                                    .paths = program->paths,
                                    .resolved = resolved,
                                    .scratch = &e->scratch};
    return true;
}

/* ---- Buckets ---- */

static void look_up(hr_evaluation *e, uint32_t attribute, hr_hash_value *value) {
    value->known = true;
    const hr_js_value *json = hr_attribute(&e->attributes, e->program->hash_attributes[attribute]);
    value->present = hr_js_truthy(json);
    if (!value->present) return;
    char number[HR_JS_NUMBER_SIZE];
    hr_js_text text = hr_js_to_text(json, number, &e->scratch);
    if (text.bytes == number) {
        text.bytes = hr_arena_strndup(e->scratch.arena, number, text.nbytes);
        e->scratch.failed |= text.bytes == NULL;
        if (text.bytes == NULL) return;
    }
    value->text = text;
    value->state = hr_fnv_add(HR_FNV_BASIS, text);
}

static const hr_hash_value *hash_value(hr_evaluation *e, uint32_t attribute) {
    hr_hash_value *value = &e->hash_values[attribute];
    if (!value->known) look_up(e, attribute, value);
    return value;
}

hr_js_text hr_evaluation_hash_text(hr_evaluation *evaluation, uint32_t hash_attribute) {
    return hash_value(evaluation, hash_attribute)->text;
}

/* The bucket of a hash, and with it of those that come next: whoever asks one rule will ask the others. */
static void fill_buckets(hr_evaluation *e, uint32_t hash, const hr_hash_value *value) {
    const hr_hash_spec *specs = &e->program->hashes[hash];
    uint32_t states[HR_HASH_LANES], buckets[HR_HASH_LANES];
    if (specs->version == 1) {
        uint32_t state = hr_fnv_add(value->state, specs->seed);
        e->buckets[hash] = hr_fnv_bucket(state, 1);
        return;
    }
    for (uint32_t l = 0; l < HR_HASH_LANES; l++) states[l] = specs[l < specs->n_alike ? l : 0].state;
    hr_fnv_buckets(states, value->text, buckets);
    for (uint32_t l = 0; l < specs->n_alike; l++) e->buckets[hash + l] = buckets[l];
}

static bool ask_bucket(hr_evaluation *e, uint32_t hash, uint32_t *bucket) {
    const hr_hash_value *value = hash_value(e, e->program->hashes[hash].attribute);
    if (!value->present) return false;
    fill_buckets(e, hash, value);
    *bucket = e->buckets[hash];
    return true;
}

/* False where there is nobody to hash, or no such hash. */
static bool bucket_of(hr_evaluation *e, int32_t hash, uint32_t *bucket) {
    if (hash == HR_NO_HASH) return false;
    *bucket = e->buckets[hash];
    return *bucket != UNKNOWN_BUCKET || ask_bucket(e, (uint32_t)hash, bucket);
}

/* The same, of its place between 0 and 1. */
static bool place_of(hr_evaluation *e, int32_t hash, double *place) {
    uint32_t bucket;
    if (!bucket_of(e, hash, &bucket)) return false;
    *place = hr_bucket_place(bucket, e->program->hashes[hash].version);
    return true;
}

static bool is_filtered_out(hr_evaluation *e, const hr_filters *filters) {
    for (uint32_t i = 0; i < filters->n; i++) {
        const hr_filter *filter = &filters->filters[i];
        double place;
        if (!place_of(e, filter->hash, &place)) return true;
        if (hr_choose_variation(place, filter->ranges, filter->n_ranges) < 0) return true;
    }
    return false;
}

static bool is_targeted(hr_evaluation *e, const hr_targeting *targeting) {
    return targeting->condition == NULL || hr_condition_holds(targeting->condition, &e->attributes);
}

/* ---- Prerequisites ---- */

typedef enum prerequisite_outcome { PREREQUISITES_HOLD, PREREQUISITE_FAILS, GATE_FAILS, CYCLE } outcome;

static outcome ask_each(hr_evaluation *e, const hr_prerequisite *prerequisites, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const hr_prerequisite *p = &prerequisites[i];
        const hr_flag_result *result = hr_evaluate_flag(e, p->feature);
        if (result->source == HR_FLAG_SOURCE_CYCLIC_PREREQUISITE) return CYCLE;
        if (p->condition == NULL) continue;
        hr_js_value value = *result->value->json;
        value.key = hr_js_text_of("value", 5);
        value.next = NULL;
        const hr_js_value of = {.kind = HR_JS_OBJECT, .n = 1, .first = &value};
        if (hr_condition_holds_of(p->condition, &of, &e->scratch)) continue;
        return p->gate ? GATE_FAILS : PREREQUISITE_FAILS;
    }
    return PREREQUISITES_HOLD;
}

static outcome ask_prerequisites(hr_evaluation *e, const hr_prerequisite *prerequisites, uint32_t n) {
    return n == 0 ? PREREQUISITES_HOLD : ask_each(e, prerequisites, n);
}

/* ---- Experiments ---- */

/* parseInt of the digits in front, as far as it matters; -1 where there are none, or too many. */
static int read_variation(const char *at, const char *end, uint32_t n_variations) {
    int64_t variation = -1;
    for (; at < end && *at >= '0' && *at <= '9' && variation < n_variations; at++)
        variation = (variation < 0 ? 0 : variation) * 10 + (*at - '0');
    return variation < n_variations ? (int)variation : -1;
}

int hr_url_variation(const char *experiment, hr_js_text url, uint32_t n_variations) {
    const size_t n_name = strlen(experiment);
    const char *end = url.bytes + url.nbytes, *at = memchr(url.bytes, '?', url.nbytes);
    if (at == NULL) return -1;
    const char *stop = ++at;
    while (stop < end && *stop != '?' && *stop != '#') stop++;
    while (at < stop) {
        const char *next = memchr(at, '&', (size_t)(stop - at));
        if (next == NULL) next = stop;
        const char *equals = memchr(at, '=', (size_t)(next - at));
        if (equals == NULL) equals = next;
        if ((size_t)(equals - at) == n_name && memcmp(at, experiment, n_name) == 0)
            return equals == next ? -1 : read_variation(equals + 1, next, n_variations);
        at = next + 1;
    }
    return -1;
}

/* Whether the request forces the experiment's variation, and by what. */
static bool is_forced(const hr_evaluation *e, const hr_experiment *experiment, int32_t *variation,
                      hr_reason *reason) {
    if (e->subject.url.nbytes == 0 && e->subject.n_forced == 0) return false;
    *reason = HR_REASON_URL_FORCED;
    *variation = e->subject.url.nbytes == 0
                     ? -1
                     : hr_url_variation(experiment->key, e->subject.url, experiment->n_variations);
    if (*variation >= 0) return true;
    *reason = HR_REASON_REQUEST_FORCED;
    for (size_t i = 0; i < e->subject.n_forced; i++) {
        if (strcmp(e->subject.forced[i].experiment, experiment->key) != 0) continue;
        *variation = e->subject.forced[i].variation;
        return true;
    }
    return false;
}

/* A variation that is forced; one that the experiment lacks leaves the user out. */
static void force(hr_run *run, int32_t variation, hr_reason reason) {
    run->reason = reason;
    run->in_experiment = variation >= 0 && variation < (int32_t)run->experiment->n_variations;
    run->variation = run->in_experiment ? (uint32_t)variation : 0;
}

/* Why the user is none of those that the experiment may take; ASSIGNED where nothing speaks against it. */
static hr_reason exclude(hr_evaluation *e, const hr_experiment *x) {
    double place;
    if (x->inactive) return HR_REASON_INACTIVE;
    if (!hash_value(e, x->hash_attribute)->present) return HR_REASON_NO_HASH_VALUE;
    if (x->filters.present) {
        if (is_filtered_out(e, &x->filters)) return HR_REASON_OUTSIDE_FILTERS;
    } else if (x->namespace_id != NULL) {
        if (!place_of(e, x->namespace_hash, &place) || !hr_in_range(place, x->namespace_range))
            return HR_REASON_OUTSIDE_NAMESPACE;
    }
    return HR_REASON_ASSIGNED;
}

static hr_reason exclude_by_condition(hr_evaluation *e, const hr_experiment *x) {
    if (!is_targeted(e, &x->targeting)) return HR_REASON_NOT_TARGETED;
    if (ask_prerequisites(e, x->prerequisites, x->n_prerequisites) != PREREQUISITES_HOLD)
        return HR_REASON_NOT_PREREQUISITE;
    return HR_REASON_ASSIGNED;
}

static const hr_bandit_leaf *choose_leaf(hr_evaluation *e, const hr_bandit *bandit) {
    for (uint32_t i = 0; i < bandit->n_leaves; i++)
        if (is_targeted(e, &bandit->leaves[i].targeting)) return &bandit->leaves[i];
    return &bandit->fallback;
}

/* The variation whose range has the bucket: of the experiment's ranges, or of the contextual bandit's leaf.
 */
static hr_reason choose(hr_evaluation *e, hr_run *run, int *variation) {
    const hr_experiment *x = run->experiment;
    if (!bucket_of(e, x->hash, &run->bucket)) return HR_REASON_HASH_VERSION;
    *variation = run->leaf == NULL ? hr_choose_span(run->bucket, x->spans, x->n_ranges)
                                   : hr_choose_span(run->bucket, run->leaf->spans, run->leaf->n_ranges);
    return *variation < 0 ? HR_REASON_NOT_COVERED : HR_REASON_ASSIGNED;
}

/* Assigns a variation. The specification asks the condition before the bucket; either leaves the user out, so
 * what leaves out more comes first. */
static void assign(hr_evaluation *e, hr_run *run) {
    const hr_experiment *x = run->experiment;
    int variation = -1;
    if (x->takes_most) run->reason = exclude_by_condition(e, x);
    if (run->reason == HR_REASON_ASSIGNED) run->reason = choose(e, run, &variation);
    if (run->reason == HR_REASON_ASSIGNED && !x->takes_most) run->reason = exclude_by_condition(e, x);
    if (run->reason != HR_REASON_ASSIGNED) return;
    if (x->has_force) {
        force(run, x->force, HR_REASON_EXPERIMENT_FORCED);
    } else if (e->subject.qa_mode || x->stopped) {
        run->reason = e->subject.qa_mode ? HR_REASON_QA_MODE : HR_REASON_STOPPED;
    } else {
        force(run, variation, HR_REASON_ASSIGNED);
        run->hash_used = true;
    }
}

static const hr_run *run_experiment(hr_evaluation *e, const hr_experiment *x) {
    hr_run *run = &e->runs[e->n_runs++];
    hr_reason reason;
    int32_t variation;
    *run = (hr_run){.experiment = x, .leaf = x->bandit == NULL ? NULL : choose_leaf(e, x->bandit)};
    if (x->n_variations < 2) {
        run->reason = HR_REASON_TOO_FEW_VARIATIONS;
    } else if (e->subject.disabled) {
        run->reason = HR_REASON_DISABLED;
    } else if (is_forced(e, x, &variation, &reason)) {
        force(run, variation, reason);
    } else {
        run->reason = exclude(e, x);
        if (run->reason == HR_REASON_ASSIGNED) assign(e, run);
    }
    return run;
}

const hr_run *hr_evaluate_experiment(hr_evaluation *evaluation, const hr_experiment *experiment) {
    return run_experiment(evaluation, experiment);
}

double hr_run_place(const hr_evaluation *evaluation, const hr_run *run) {
    if (!run->hash_used && run->reason != HR_REASON_NOT_COVERED) return -1;
    return hr_bucket_place(run->bucket, evaluation->program->hashes[run->experiment->hash].version);
}

/* ---- Features ---- */

static void tell(const hr_evaluation *e, const hr_flag *feature, const hr_rule *rule, const hr_run *run,
                 hr_reason reason) {
    if (e->trace != NULL) e->trace->step(e->trace->arg, feature, rule, run, reason);
}

/* isIncludedInRollout */
static bool is_in_rollout(hr_evaluation *e, const hr_rule *rule) {
    double place;
    if (!rule->has_range && !rule->has_coverage) return true;
    if (!rule->has_range && rule->coverage == 0) return false;
    if (!place_of(e, rule->hash, &place)) return false;
    return rule->has_range ? hr_in_range(place, rule->range) : place <= rule->coverage;
}

/* Whether the rule gives the feature its value (or takes it away); *reason says why or why not. */
static bool apply_rule(hr_evaluation *e, const hr_rule *rule, hr_flag_result *result, hr_reason *reason) {
    outcome o = ask_prerequisites(e, rule->prerequisites, rule->n_prerequisites);
    *reason = o == CYCLE ? HR_REASON_CYCLE : o == GATE_FAILS ? HR_REASON_GATED : HR_REASON_PREREQUISITE;
    if (o == CYCLE || o == GATE_FAILS) {
        result->source = o == CYCLE ? HR_FLAG_SOURCE_CYCLIC_PREREQUISITE : HR_FLAG_SOURCE_PREREQUISITE;
        return true;
    }
    if (o == PREREQUISITE_FAILS) return false;
    *reason = HR_REASON_FILTERED;
    if (rule->filters.present && is_filtered_out(e, &rule->filters)) return false;
    *reason = rule->n_prerequisites > 0 ? HR_REASON_GATE_OPEN : HR_REASON_NO_KIND;
    if (rule->kind == HR_RULE_SKIP) return false;
    if (rule->kind == HR_RULE_FORCE) {
        *reason = HR_REASON_ROLLOUT;
        if (!is_in_rollout(e, rule)) return false;
        *reason = HR_REASON_CONDITION;
        if (!is_targeted(e, &rule->targeting)) return false;
        *reason = HR_REASON_FORCED_VALUE;
        *result = (hr_flag_result){.source = HR_FLAG_SOURCE_FORCE, .value = &rule->force, .rule = rule};
        return true;
    }
    const hr_run *run = run_experiment(e, rule->experiment);
    const hr_variation *variation = &rule->experiment->variations[run->variation];
    *reason = run->reason;
    result->run = run;
    if (!run->in_experiment) return false;
    if (variation->passthrough) *reason = HR_REASON_PASSED_THROUGH;
    if (variation->passthrough) return false;
    *result = (hr_flag_result){
        .source = HR_FLAG_SOURCE_EXPERIMENT, .value = &variation->value, .rule = rule, .run = run};
    return true;
}

static void evaluate_rules(hr_evaluation *e, const hr_flag *feature, hr_flag_result *result) {
    for (uint32_t i = 0; i < feature->n_rules; i++) {
        hr_reason reason;
        result->run = NULL;
        bool applies = apply_rule(e, &feature->rules[i], result, &reason);
        tell(e, feature, &feature->rules[i], result->run, reason);
        if (applies) return;
    }
    *result = (hr_flag_result){.source = HR_FLAG_SOURCE_DEFAULT_VALUE, .value = &feature->fallback};
    tell(e, feature, NULL, NULL, HR_REASON_DEFAULT_VALUE);
}

const hr_flag_result *hr_evaluate_flag(hr_evaluation *evaluation, uint32_t feature) {
    static const hr_js_value no_json = {.kind = HR_JS_NULL};
    static const hr_flag_value no_value = {.json = &no_json};
    static const hr_flag_result cycle = {
        .state = HR_RESULT_DONE, .source = HR_FLAG_SOURCE_CYCLIC_PREREQUISITE, .value = &no_value};
    hr_evaluation *e = evaluation;
    hr_flag_result *result = &e->results[feature];
    const hr_flag *f = &e->program->features[feature];
    if (result->state == HR_RESULT_DONE) return result;
    if (result->state == HR_RESULT_UNDER_WAY || e->depth == MAX_PREREQUISITE_DEPTH) return &cycle;
    *result = (hr_flag_result){.state = HR_RESULT_UNDER_WAY, .value = &no_value};
    e->depth++;
    if (f->known)
        evaluate_rules(e, f, result);
    else
        tell(e, f, NULL, NULL, HR_REASON_UNKNOWN_FEATURE);
    e->depth--;
    result->state = HR_RESULT_DONE;
    return result;
}
