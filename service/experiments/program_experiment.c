/* Compiling experiments: see program.h. */
#include <stdio.h>
#include <string.h>

#include "service/experiments/program_internal.h"

static void *make(hr_flag_builder *b, size_t n, size_t size) {
    return hr_arena_calloc(b->arena, n, size);
}

/* ---- Variations ---- */

static hr_status compile_variation(hr_flag_builder *b, const json_t *value, const json_t *meta, size_t index,
                                   hr_variation *variation) {
    char digits[24];
    snprintf(digits, sizeof digits, "%zu", index);
    hr_status status = hr_flag_part__value(b, value, &variation->value);
    if (status == HR_OK) status = hr_flag_part__text(b, meta, "key", digits, &variation->key);
    if (status == HR_OK) status = hr_flag_part__text(b, meta, "name", "", &variation->name);
    variation->passthrough = json_is_true(json_object_get(meta, "passthrough"));
    return status;
}

static hr_status compile_variations(hr_flag_builder *b, const json_t *json, const json_t *variations,
                                    hr_experiment *experiment) {
    const json_t *meta = json_object_get(json, "meta");
    size_t n = json_array_size(variations);
    hr_status status = HR_OK;
    if (n > HR_MAX_VARIATIONS)
        return hr_error_set(b->err, HR_INVALID_ARGUMENT, "%s: variations: expected at most %d, found %zu",
                            b->where, HR_MAX_VARIATIONS, n);
    if (n < 2) status = hr_flag_builder__problem(b, "variations: expected at least 2, found %zu", n);
    if (status == HR_OK && meta != NULL && !json_is_null(meta) && !json_is_array(meta))
        status = hr_flag_builder__problem(b, "meta: expected a list");
    hr_variation *made = make(b, n, sizeof *made);
    if (made == NULL) return hr_flag_builder__no_room(b);
    experiment->variations = made;
    experiment->n_variations = (uint32_t)n;
    for (size_t i = 0; i < n && status == HR_OK; i++)
        status = compile_variation(b, json_array_get(variations, i), json_array_get(meta, i), i, &made[i]);
    return status;
}

/* ---- Who gets which ---- */

static hr_status check_weights(hr_flag_builder *b, const double *weights, size_t n, size_t n_variations) {
    if (weights == NULL) return HR_OK;
    if (n != n_variations)
        return hr_flag_builder__problem(b, "weights: expected one per variation (%zu), found %zu",
                                        n_variations, n);
    if (hr_weights_add_up(weights, n)) return HR_OK;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += weights[i];
    return hr_flag_builder__problem(b, "weights: expected a sum of 1, found %g", sum);
}

static hr_status ranges_of_weights(hr_flag_builder *b, const hr_experiment *experiment, const double *weights,
                                   size_t n_weights, uint32_t *n_ranges, const hr_range **ranges) {
    hr_range *made = make(b, experiment->n_variations, sizeof *made);
    if (made == NULL) return hr_flag_builder__no_room(b);
    hr_bucket_ranges(experiment->n_variations, experiment->coverage, weights, n_weights, made);
    *n_ranges = experiment->n_variations;
    *ranges = made;
    return check_weights(b, weights, n_weights, experiment->n_variations);
}

static hr_status compile_ranges(hr_flag_builder *b, const json_t *json, hr_experiment *experiment) {
    bool has_coverage = false;
    experiment->coverage = 1;
    hr_status status = hr_flag_part__number(b, json, "coverage", &has_coverage, &experiment->coverage);
    if (status == HR_OK && (experiment->coverage < 0 || experiment->coverage > 1))
        status = hr_flag_builder__problem(b, "coverage: expected 0 to 1, found %g", experiment->coverage);
    if (status == HR_OK)
        status = hr_flag_part__weights(b, json_object_get(json, "weights"), "weights", &experiment->n_weights,
                                       &experiment->weights);
    if (status != HR_OK) return status;
    const json_t *ranges = json_object_get(json, "ranges");
    if (ranges == NULL || json_is_null(ranges))
        return ranges_of_weights(b, experiment, experiment->weights, experiment->n_weights,
                                 &experiment->n_ranges, &experiment->ranges);
    status = hr_flag_part__ranges(b, ranges, "ranges", &experiment->n_ranges, &experiment->ranges);
    if (status == HR_OK && experiment->n_ranges != experiment->n_variations)
        status = hr_flag_builder__problem(b, "ranges: expected one per variation (%u), found %u",
                                          (unsigned)experiment->n_variations, (unsigned)experiment->n_ranges);
    return status;
}

static bool takes_most(const hr_experiment *experiment) {
    double sum = 0;
    for (uint32_t i = 0; i < experiment->n_ranges; i++)
        sum += experiment->ranges[i].end - experiment->ranges[i].start;
    return sum >= 0.5;
}

static hr_status compile_namespace(hr_flag_builder *b, const json_t *json, const char *attribute,
                                   hr_experiment *experiment) {
    const json_t *space = json_object_get(json, "namespace");
    if (space == NULL || json_is_null(space)) return HR_OK;
    const char *id = json_string_value(json_array_get(space, 0));
    if (id == NULL) {
        hr_status status = hr_flag_builder__problem(b, "namespace: expected [id, start, end]");
        if (status != HR_OK) return status;
        id = "";
    }
    char *seed = make(b, strlen(id) + 3, 1);
    if (seed == NULL) return hr_flag_builder__no_room(b);
    sprintf(seed, "__%s", id);
    experiment->namespace_id = seed + 2;
    hr_status status = hr_flag_part__range(b, json_array_get(space, 1), json_array_get(space, 2), "namespace",
                                           &experiment->namespace_range);
    return status == HR_OK ? hr_flag_builder__hash(b, attribute, 1, seed, &experiment->namespace_hash)
                           : status;
}

static hr_status compile_hashes(hr_flag_builder *b, const json_t *json, hr_experiment *experiment) {
    const char *attribute = NULL, *seed = NULL;
    int version;
    hr_status status = hr_flag_part__text(b, json, "hashAttribute", "id", &attribute);
    if (status == HR_OK) status = hr_flag_part__text(b, json, "seed", experiment->key, &seed);
    if (status == HR_OK) status = hr_flag_part__hash_version(b, json, 1, &version);
    if (status == HR_OK) status = hr_flag_builder__hash_attribute(b, attribute, &experiment->hash_attribute);
    if (status == HR_OK) status = hr_flag_builder__hash(b, attribute, version, seed, &experiment->hash);
    return status == HR_OK ? compile_namespace(b, json, attribute, experiment) : status;
}

/* The ranges as the buckets of the experiment's hash. */
static hr_status compile_spans(hr_flag_builder *b, const hr_experiment *experiment, const hr_range *ranges,
                               uint32_t n_ranges, const hr_bucket_span **spans) {
    if (experiment->hash == HR_NO_HASH) return HR_OK;
    const hr_hash_spec *hash = (const hr_hash_spec *)b->hashes.elements + experiment->hash;
    hr_bucket_span *made = make(b, n_ranges, sizeof *made);
    if (made == NULL) return hr_flag_builder__no_room(b);
    for (uint32_t i = 0; i < n_ranges; i++) made[i] = hr_bucket_span_of(ranges[i], hash->version);
    *spans = made;
    return HR_OK;
}

/* ---- Contextual bandits ---- */

static hr_status compile_leaf(hr_flag_builder *b, const json_t *json, const hr_experiment *experiment,
                              hr_bandit_leaf *leaf) {
    leaf->leaf_id = json_number_value(json_object_get(json, "leafId"));
    hr_status status = hr_flag_part__targeting(b, json, &leaf->targeting);
    if (status == HR_OK)
        status = hr_flag_part__weights(b, json_object_get(json, "weights"), "contextualBandits: weights",
                                       &leaf->n_weights, &leaf->weights);
    if (status == HR_OK)
        status =
            ranges_of_weights(b, experiment, leaf->weights, leaf->n_weights, &leaf->n_ranges, &leaf->ranges);
    return status == HR_OK ? compile_spans(b, experiment, leaf->ranges, leaf->n_ranges, &leaf->spans)
                           : status;
}

/* The weights of those that fit no leaf: the experiment's own. */
static hr_status compile_fallback(hr_flag_builder *b, const hr_experiment *experiment, hr_bandit_leaf *leaf) {
    *leaf = (hr_bandit_leaf){.leaf_id = -1,
                             .n_weights = experiment->n_weights,
                             .weights = experiment->weights,
                             .n_ranges = experiment->n_ranges,
                             .ranges = experiment->ranges,
                             .spans = experiment->spans};
    if (leaf->weights != NULL) return HR_OK;
    double *equal = make(b, experiment->n_variations, sizeof *equal);
    if (equal == NULL) return hr_flag_builder__no_room(b);
    hr_equal_weights(experiment->n_variations, equal);
    leaf->weights = equal;
    leaf->n_weights = experiment->n_variations;
    return HR_OK;
}

static hr_status compile_bandit(hr_flag_builder *b, const json_t *json, hr_experiment *experiment) {
    const char *ref = json_string_value(json_object_get(json, "contextualBanditRef"));
    if (ref == NULL || ref[0] == '\0') return HR_OK;
    const json_t *definition = json_object_get(json_object_get(b->source->payload, "contextualBandits"), ref);
    if (!json_is_object(definition)) {
        hr_flag_builder__warn(
            b, "contextualBanditRef: no such contextual bandit: its aggregate weights are used");
        return HR_OK;
    }
    const json_t *contexts = json_object_get(definition, "contexts");
    hr_bandit *bandit = make(b, 1, sizeof *bandit);
    hr_bandit_leaf *leaves = make(b, json_array_size(contexts), sizeof *leaves);
    if (bandit == NULL || leaves == NULL) return hr_flag_builder__no_room(b);
    hr_status status =
        hr_flag_part__number(b, definition, "banditVersion", &bandit->has_version, &bandit->version);
    bandit->leaves = leaves;
    bool own_ranges = json_is_array(json_object_get(json, "ranges"));
    for (; bandit->n_leaves < json_array_size(contexts) && status == HR_OK; bandit->n_leaves++) {
        hr_bandit_leaf *leaf = &leaves[bandit->n_leaves];
        status = compile_leaf(b, json_array_get(contexts, bandit->n_leaves), experiment, leaf);
        if (own_ranges) { /* ranges win over weights */
            leaf->n_ranges = experiment->n_ranges;
            leaf->ranges = experiment->ranges;
            leaf->spans = experiment->spans;
        }
    }
    experiment->bandit = bandit;
    return status == HR_OK ? compile_fallback(b, experiment, &bandit->fallback) : status;
}

/* ---- All of it ---- */

/* What only an experiment by itself may say; a rule's is left out of its experiment. */
static hr_status compile_alone(hr_flag_builder *b, const json_t *json, hr_experiment *experiment) {
    const char *status_text = json_string_value(json_object_get(json, "status"));
    const json_t *force = json_object_get(json, "force");
    bool draft = status_text != NULL && strcmp(status_text, "draft") == 0;
    experiment->inactive = draft || json_is_false(json_object_get(json, "active"));
    experiment->stopped = status_text != NULL && strcmp(status_text, "stopped") == 0;
    experiment->has_force = force != NULL;
    double number = json_is_number(force) ? json_number_value(force) : -1;
    bool small = number >= 0 && number < HR_MAX_VARIATIONS;
    experiment->force = small ? (int32_t)number : -1;
    return hr_flag_part__prerequisites(b, json, &experiment->n_prerequisites, &experiment->prerequisites);
}

/* The first experiment with this key: one may give several features their values. */
static const hr_experiment *find_key(const hr_flag_builder *b, const hr_experiment *experiment) {
    hr_experiment *const *experiments = b->experiments.elements;
    size_t i = 0;
    while (strcmp(experiments[i]->key, experiment->key) != 0) i++;
    return experiments[i];
}

static void number_key(hr_flag_builder *b, hr_experiment *experiment) {
    const hr_experiment *first = find_key(b, experiment);
    experiment->key_index = first == experiment ? b->n_keys++ : first->key_index;
    if (first == experiment || first->feature[0] == '\0') return;
    bool same = first->hash == experiment->hash && first->n_ranges == experiment->n_ranges &&
                memcmp(first->ranges, experiment->ranges, first->n_ranges * sizeof *first->ranges) == 0;
    if (!same)
        hr_flag_builder__warn(b,
                              "assigns otherwise than feature %s does under the same key: a user may be "
                              "in two of its variations",
                              hr_quote(first->feature, strlen(first->feature)).text);
}

hr_status hr_experiment__compile(hr_flag_builder *b, const json_t *json, const json_t *variations,
                                 const char *default_key, hr_experiment **experiment) {
    hr_experiment *made = make(b, 1, sizeof *made);
    if (made == NULL) return hr_flag_builder__no_room(b);
    made->index = (uint32_t)b->experiments.n;
    made->feature = b->feature;
    *experiment = made;
    hr_status status = hr_flag_builder__push(b, &b->experiments, &made);
    if (status == HR_OK) status = hr_flag_part__text(b, json, "key", default_key, &made->key);
    if (status == HR_OK) status = hr_flag_part__text(b, json, "name", "", &made->name);
    if (status == HR_OK) status = hr_flag_part__text(b, json, "phase", "", &made->phase);
    if (status == HR_OK) status = compile_variations(b, json, variations, made);
    if (status == HR_OK) status = compile_ranges(b, json, made);
    made->takes_most = takes_most(made);
    if (status == HR_OK) status = compile_hashes(b, json, made);
    if (status == HR_OK) status = compile_spans(b, made, made->ranges, made->n_ranges, &made->spans);
    if (status == HR_OK) number_key(b, made);
    if (status == HR_OK) status = hr_flag_part__filters(b, json, &made->filters);
    if (status == HR_OK) status = hr_flag_part__targeting(b, json, &made->targeting);
    if (status == HR_OK) status = compile_bandit(b, json, made);
    if (status == HR_OK && json == b->source->experiment) status = compile_alone(b, json, made);
    return status;
}
