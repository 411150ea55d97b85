/* The diagnostics of experts and gates: measures worked out by hand, verdicts at their thresholds, the page.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/diagnostics.h"
#include "service/diagnostics_html.h"
#include "service/diagnostics_report.h"

/* One layer: `shared` lends two experts of two neurons to the gates of `a` (one own expert, self gate), `b`
 * and `c` (none). The names are hostile, though no config.json may hold such. */
enum { SHARED, A, B, C, N_UNITS };
static const hr_expert_layer expert_layer = {.in = 1, .out = 2};
static const uint32_t mix_a[] = {SHARED, A}, mix_shared[] = {SHARED};
static const hr_source from_features = {HR_SOURCE_FEATURES, 0, 1};
static const hr_unit units[N_UNITS] = {
    [SHARED] = {.name = "shared<q>", .n_experts = 2},
    [A] =
        {.name = "a", .n_experts = 1, .mix = mix_a, .n_mix = 2, .n_mixed = 3, .self_gate = true, .width = 2},
    [B] = {.name = "b\"&'", .mix = mix_shared, .n_mix = 1, .n_mixed = 2, .width = 2},
    [C] = {.name = "c", .mix = mix_shared, .n_mix = 1, .n_mixed = 2, .width = 2},
};
static const hr_schema schema = {.width = 1};
static const hr_task tasks[] = {{.name = "t<1>", .input = {0, A, 2}, .output = HR_OUTPUT_SIGMOID},
                                {.name = "u", .input = {0, B, 2}, .output = HR_OUTPUT_IDENTITY}};

typedef struct fixture {
    hr_unit units[N_UNITS];
    hr_layer layer;
    hr_plan plan;
    hr_diagnostics *d;
    hr_observer observer;
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    memcpy(f->units, units, sizeof units);
    for (uint32_t u = 0; u < N_UNITS; u++) {
        f->units[u].input = f->units[u].gate_input = (hr_input){&from_features, 1, 1};
        f->units[u].n_expert_layers = f->units[u].n_experts > 0;
        f->units[u].expert_layers = &expert_layer;
    }
    f->layer = (hr_layer){"only", f->units, N_UNITS};
    f->plan = (hr_plan){.schema = &schema, .layers = &f->layer, .n_layers = 1, .tasks = tasks, .n_tasks = 2};
    hr_error err;
    assert_int_equal(hr_diagnostics_create(&f->plan, &f->d, &err), HR_OK);
    f->observer = hr_diagnostics_observer(f->d);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    hr_diagnostics_destroy(f->d);
    free(f);
    return 0;
}

static void add_expert(fixture *f, uint32_t u, uint32_t k, float first, float second) {
    const float values[2] = {first, second};
    f->observer.expert(f->observer.arg, &f->units[u], k, 0, values);
}

static void add_mix(fixture *f, uint32_t u, float first, float second, float third) {
    const float weights[3] = {first, second, third};
    f->observer.mix(f->observer.arg, &f->units[u], weights);
}

static void add_self_gate(fixture *f, float weight) {
    f->observer.self_gate(f->observer.arg, &f->units[A], &weight);
}

static void add_logits(fixture *f, float t, float u) {
    const float logits[2] = {t, u};
    hr_diagnostics_add_logits(f->d, logits, 1);
}

/* A row in which nothing is suspicious, as its values vary with `x`. */
static void add_healthy_row(fixture *f, float x) {
    add_expert(f, SHARED, 0, x, -x);
    add_expert(f, SHARED, 1, 2 * x, x);
    add_expert(f, A, 0, -x, 3 * x);
    add_mix(f, A, 0.3F, 0.3F, 0.4F);
    add_self_gate(f, 0.5F);
    add_mix(f, B, 0.5F, 0.5F, 0);
    add_mix(f, C, 0.4F, 0.6F, 0);
    add_logits(f, 0, x);
}

static hr_expert_measures expert(const fixture *f, uint32_t u, uint32_t k) {
    return hr_diagnostics_expert(f->d, 0, u, k, 0);
}

static void assert_near(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-7 * fmax(1.0, fabs(expected))))
        fail_msg("expected %.9g, found %.9g", expected, found);
}

/* ---- Measures ---- */

static void an_expert_is_measured_over_rows_and_neurons(void **state) {
    fixture *f = *state;
    add_expert(f, SHARED, 1, 1, 0);
    add_expert(f, SHARED, 1, 2, 9e-7F);
    add_expert(f, SHARED, 1, 6, -9e-7F);
    hr_expert_measures m = expert(f, SHARED, 1);
    assert_int_equal(m.width, 2);
    assert_near(m.zero_share, 0.5);
    assert_int_equal(m.n_dead, 1);
    assert_near(m.mean, 1.5);
    assert_near(m.std, sqrt((1 + 4 + 36) / 6.0 - 1.5 * 1.5));
    assert_near(m.row_std, sqrt(((4 + 1 + 9) / 3.0 + 0) / 2)); /* of 1, 2, 6 about 3, and of the zeros */
    assert_int_equal(expert(f, SHARED, 0).n_dead, 0);          /* nothing was told of it */
}

static void a_small_spread_about_a_large_mean_is_not_lost(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 1000; i++) add_expert(f, A, 0, 8e6F + (float)(i % 2), -8e6F);
    hr_expert_measures m = expert(f, A, 0);
    assert_near(m.row_std, 0.5 / sqrt(2));
    assert_near(m.std, 8e6);
}

static void a_gates_entropy_is_told_from_its_rows(void **state) {
    fixture *f = *state;
    add_mix(f, A, 1, 0, 0);
    add_mix(f, A, 0, 1, 0);
    hr_gate_measures m = hr_diagnostics_gate(f->d, 0, A);
    assert_near(m.weights[0], 0.5);
    assert_near(m.weights[1], 0.5);
    assert_near(m.weights[2], 0);
    assert_near(m.entropy, log(2) / log(3));
    assert_near(m.row_entropy, 0);
    add_mix(f, A, 1 / 3.0F, 1 / 3.0F, 1 / 3.0F);
    assert_near(hr_diagnostics_gate(f->d, 0, A).row_entropy, 1 / 3.0);
    assert_near(hr_diagnostics_weight(f->d, 0, A, A, 0), 1 / 9.0);
    assert_near(hr_diagnostics_weight(f->d, 0, A, SHARED, 1), 4 / 9.0);
    assert_near(hr_diagnostics_weight(f->d, 0, B, A, 0), -1); /* it does not see it */
}

static void the_own_experts_part_counts_the_self_gate(void **state) {
    fixture *f = *state;
    add_mix(f, A, 0.5F, 0.25F, 0.25F);
    add_self_gate(f, 0.25F);
    add_mix(f, A, 0.25F, 0.5F, 0.25F);
    add_self_gate(f, 0.75F);
    hr_gate_measures m = hr_diagnostics_gate(f->d, 0, A);
    assert_near(m.own, 0.25);
    assert_near(m.own_even, 1 / 3.0);
    assert_near(m.self, 0.5);
    assert_near(m.self_weights[0], 0.5);
    assert_near(m.own_total, 0.75 / 1.5);
    hr_gate_measures none = hr_diagnostics_gate(f->d, 0, B);
    assert_near(none.own_even, 0);
    assert_null(none.self_weights);
}

static void an_experts_use_is_spread_over_the_gates_that_see_it(void **state) {
    fixture *f = *state;
    add_mix(f, A, 0.2F, 0.2F, 0.6F);
    add_mix(f, B, 0.2F, 0.8F, 0);
    add_mix(f, C, 0.6F, 0.4F, 0);
    hr_use_measures m = hr_diagnostics_use(f->d, 0, SHARED, 0);
    assert_int_equal(m.n_gates, 3);
    assert_near(m.mean, 1 / 3.0);
    assert_near(m.largest_share, 0.6);
    assert_int_equal(m.largest_unit, C);
    assert_near(m.entropy, -(0.4 * log(0.2) + 0.6 * log(0.6)) / log(3));
    assert_int_equal(hr_diagnostics_use(f->d, 0, A, 0).n_gates, 1);
}

static void a_tasks_output_is_averaged_behind_its_function(void **state) {
    fixture *f = *state;
    add_logits(f, 0, 3);
    add_logits(f, logf(3), -5);
    assert_int_equal(hr_diagnostics_rows(f->d), 2);
    assert_near(hr_diagnostics_output(f->d, 0), (0.5 + 0.75) / 2);
    assert_near(hr_diagnostics_output(f->d, 1), -1);
}

/* ---- Verdicts ---- */

typedef struct seen {
    size_t n, of[HR_VERDICT_COUNT];
} seen;

static void see(void *arg, hr_verdict verdict, const char *subject, const char *figures) {
    seen *s = arg;
    s->n++;
    s->of[verdict]++;
    assert_int_equal(strncmp(subject, "only.", 5), 0);
    assert_true(strlen(figures) > 0);
}

/* Nothing but `verdict`, once; nothing at all for NONE. */
static void assert_found(const fixture *f, hr_verdict verdict) {
    seen s = {0};
    size_t n = hr_diagnostics_findings(f->d, see, &s);
    assert_int_equal(n, s.n);
    assert_int_equal(s.n, verdict == HR_VERDICT_NONE ? 0 : 1);
    if (verdict != HR_VERDICT_NONE) assert_int_equal(s.of[verdict], 1);
}

static void a_healthy_network_has_no_findings(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 10; i++) add_healthy_row(f, (float)(i - 4));
    assert_found(f, HR_VERDICT_NONE);
}

static void what_overflows_is_said_and_spoils_no_other_verdict(void **state) {
    fixture *f = *state;
    seen s = {0};
    for (int i = 0; i < 10; i++) add_healthy_row(f, (float)(i - 4));
    add_expert(f, SHARED, 0, INFINITY, 1);
    add_expert(f, A, 0, NAN, 1);
    add_mix(f, B, NAN, NAN, 0);
    add_logits(f, 0, 1);
    assert_int_equal(hr_diagnostics_findings(f->d, see, &s), 3);
    assert_int_equal(s.of[HR_VERDICT_NOT_FINITE], 3);
    assert_int_equal(expert(f, SHARED, 1).verdict, HR_VERDICT_NONE);
    for (int i = 0; i < 9; i++) add_expert(f, SHARED, 1, 1e6F, -1e6F);
    add_logits(f, 0, 1); /* of the finite spreads there is but its own */
    assert_int_equal(expert(f, SHARED, 1).verdict, HR_VERDICT_NONE);
    add_self_gate(f, NAN);
    assert_int_equal(hr_diagnostics_gate(f->d, 0, A).degradation, HR_VERDICT_NOT_FINITE);
}

static void verdicts_follow_the_rows(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 10; i++) add_healthy_row(f, (float)(i - 4));
    assert_found(f, HR_VERDICT_NONE);
    for (int i = 0; i < 10; i++) {
        add_healthy_row(f, (float)(i - 4));
        add_expert(f, SHARED, 0, 2000.0F * (float)(i - 4), -2000.0F * (float)(i - 4));
    }
    assert_found(f, HR_VERDICT_OUT_OF_SCALE);
}

static void one_row_is_not_judged(void **state) {
    fixture *f = *state;
    add_healthy_row(f, 0);
    assert_found(f, HR_VERDICT_NONE);
    add_healthy_row(f, 0);
    seen s = {0};
    hr_diagnostics_findings(f->d, see, &s);
    assert_int_equal(s.of[HR_VERDICT_COLLAPSED], 3);
}

/* Ten rows in which expert A's neurons are n_zero times zero, alternating between them. */
static void add_rows_with_zeros(fixture *f, int n_zero) {
    for (int i = 0; i < 10; i++) {
        float x = (float)(i + 1);
        add_expert(f, SHARED, 0, x, -x);
        add_expert(f, SHARED, 1, x, 2 * x);
        add_expert(f, A, 0, 2 * i < n_zero ? 0 : x, 2 * i + 1 < n_zero ? 0 : x);
        add_mix(f, A, 0.3F, 0.3F, 0.4F);
        add_self_gate(f, 0.5F);
        add_mix(f, B, 0.5F, 0.5F, 0);
        add_mix(f, C, 0.5F, 0.5F, 0);
        add_logits(f, 0, 0);
    }
}

static void zeros_collapse_an_expert_from_ninety_percent(void **state) {
    fixture *f = *state;
    add_rows_with_zeros(f, 17);
    assert_found(f, HR_VERDICT_NONE);
    hr_diagnostics_destroy(f->d);
    assert_int_equal(hr_diagnostics_create(&f->plan, &f->d, NULL), HR_OK);
    f->observer = hr_diagnostics_observer(f->d);
    add_rows_with_zeros(f, 18);
    assert_found(f, HR_VERDICT_COLLAPSED);
    assert_int_equal(expert(f, A, 0).verdict, HR_VERDICT_COLLAPSED);
}

/* Healthy but for expert A's outputs and what the gates give. */
static void add_rows(fixture *f, float base, float scale, const float a[3], float self, const float b[2],
                     const float c[2]) {
    for (int i = 0; i < 10; i++) {
        float x = (float)(i - 4);
        add_expert(f, SHARED, 0, x, -x);
        add_expert(f, SHARED, 1, x, x);
        add_expert(f, A, 0, base + scale * x, base - scale * x);
        add_mix(f, A, a[0], a[1], a[2]);
        add_self_gate(f, self);
        add_mix(f, B, b[0], b[1], 0);
        add_mix(f, C, c[0], c[1], 0);
        add_logits(f, 0, 0);
    }
}

static const float even3[3] = {0.3F, 0.3F, 0.4F}, even2[2] = {0.5F, 0.5F};

static void an_expert_that_hardly_varies_is_constant(void **state) {
    fixture *f = *state;
    add_rows(f, 1000, 1, even3, 0.5F, even2, even2); /* std 2.9 */
    assert_found(f, HR_VERDICT_CONSTANT);
}

static void an_expert_wider_than_its_peers_is_out_of_scale(void **state) {
    fixture *f = *state;
    add_rows(f, 0, 9, even3, 0.5F, even2, even2);
    assert_found(f, HR_VERDICT_NONE);
    add_rows(f, 0, 30, even3, 0.5F, even2, even2);
    assert_found(f, HR_VERDICT_OUT_OF_SCALE);
}

static void an_expert_narrower_than_its_peers_is_out_of_scale(void **state) {
    fixture *f = *state;
    add_rows(f, 0, 0.05F, even3, 0.5F, even2, even2);
    assert_found(f, HR_VERDICT_OUT_OF_SCALE);
}

static void one_expert_that_takes_a_gate_is_found(void **state) {
    fixture *f = *state;
    add_rows(f, 0, 1, even3, 0.5F, (const float[]){0.92F, 0.08F}, even2);
    assert_found(f, HR_VERDICT_TAKES_ALL);
    assert_int_equal(hr_diagnostics_gate(f->d, 0, B).degradation, HR_VERDICT_TAKES_ALL);
}

static void a_shared_expert_that_serves_one_gate_is_found(void **state) {
    fixture *f = *state;
    add_rows(f, 0, 1, (const float[]){0.02F, 0.48F, 0.5F}, 0.5F, (const float[]){0.02F, 0.98F}, even2);
    seen s = {0};
    hr_diagnostics_findings(f->d, see, &s);
    assert_int_equal(s.of[HR_VERDICT_USED_BY_ONE], 1);
    assert_int_equal(hr_diagnostics_use(f->d, 0, SHARED, 0).verdict, HR_VERDICT_USED_BY_ONE);
}

static void an_expert_that_serves_nobody_is_unused(void **state) {
    fixture *f = *state;
    const float none[] = {0.02F, 0.98F};
    add_rows(f, 0, 1, (const float[]){0.02F, 0.48F, 0.5F}, 0.5F, none, none);
    assert_int_equal(hr_diagnostics_use(f->d, 0, SHARED, 0).verdict, HR_VERDICT_UNUSED);
    assert_int_equal(hr_diagnostics_use(f->d, 0, SHARED, 1).verdict, HR_VERDICT_NONE);
}

static void a_self_gate_keeps_an_ignored_expert_from_underfitting(void **state) {
    fixture *f = *state;
    const float ignored[] = {0.48F, 0.48F, 0.04F};
    add_rows(f, 0, 1, ignored, 0.5F, even2, even2);
    assert_found(f, HR_VERDICT_NONE);
    add_rows(f, 0, 1, ignored, 0, even2, even2);
    add_rows(f, 0, 1, ignored, 0, even2, even2);
    add_rows(f, 0, 1, ignored, 0, even2, even2);
    assert_found(f, HR_VERDICT_NONE); /* 0.165 / 1.125 */
    for (int i = 0; i < 12; i++) add_rows(f, 0, 1, ignored, 0, even2, even2);
    assert_found(f, HR_VERDICT_UNDERFITS); /* 0.071 / 1.031, less than a quarter of a third */
}

/* ---- The page ---- */

static char *html_of(const char *text, size_t max_chars) {
    char *html = NULL;
    size_t nbytes;
    FILE *out = open_memstream(&html, &nbytes);
    assert_non_null(out);
    hr_html_text_cut(out, text, max_chars);
    fclose(out);
    return html;
}

static void assert_html(const char *text, size_t max_chars, const char *expected) {
    char *html = html_of(text, max_chars);
    assert_string_equal(html, expected);
    free(html);
}

static void text_is_escaped_and_always_utf8(void **state) {
    (void)state;
    assert_html("<a href='x'>&\"</a>", SIZE_MAX, "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
    assert_html("plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82", SIZE_MAX,
                "plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82");
    assert_html("\x01\x7f\xc2\x9b\n", SIZE_MAX, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    assert_html("a\xff\xc3", SIZE_MAX, "a\xef\xbf\xbd\xef\xbf\xbd"); /* a byte of none, and a cut character */
    assert_html("", SIZE_MAX, "");
}

static void text_is_cut_at_characters_and_not_in_an_entity(void **state) {
    (void)state;
    assert_html("abcd", 4, "abcd");
    assert_html("abcde", 4, "abc\xe2\x80\xa6");
    assert_html("<<<<<", 3, "&lt;&lt;\xe2\x80\xa6");
    assert_html("\xc3\xa9\xc3\xa9\xc3\xa9", 2, "\xc3\xa9\xe2\x80\xa6");
}

static char *read_all(const char *path) {
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    size_t n = fread(text, 1, (1 << 20) - 1, in);
    fclose(in);
    assert_true(n > 0);
    return text;
}

static hr_diagnosis diagnosis_of(const fixture *f) {
    return (hr_diagnosis){
        .model = "<script>alert(1)</script>@1", .data = "a\"b&c.jsonl", .diagnostics = f->d};
}

static void the_page_escapes_every_name_and_needs_nothing_else(void **state) {
    static const char *const forbidden[] = {"<script", "<q>",  "t<1>", "a\"b",    "b\"&",
                                            "http",    "src=", "url(", "@import", "<link"};
    static const char *const wanted[] = {"<svg",
                                         "shared&lt;q&gt;",
                                         "t&lt;1&gt;",
                                         "a&quot;b&amp;c.jsonl",
                                         "<title>only.a[0] → a: 0.4000</title>",
                                         "Nothing suspicious"};
    fixture *f = *state;
    const hr_diagnosis diagnosis = diagnosis_of(f);
    char path[512];
    const char *folder = getenv("TEST_TMPDIR");
    hr_error err;
    for (int i = 0; i < 10; i++) add_healthy_row(f, (float)(i - 4));
    snprintf(path, sizeof path, "%s/diagnosis.%p.html", folder == NULL ? "/tmp" : folder, (void *)f);
    assert_int_equal(hr_diagnosis_write_html(&diagnosis, path, &err), HR_OK);
    char *page = read_all(path);
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        if (strstr(page, forbidden[i]) != NULL) fail_msg("found %s", forbidden[i]);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (strstr(page, wanted[i]) == NULL) fail_msg("not found: %s", wanted[i]);
    free(page);
    remove(path);
}

static void a_page_or_table_that_cannot_be_written_is_said(void **state) {
    fixture *f = *state;
    const hr_diagnosis diagnosis = diagnosis_of(f);
    hr_error err;
    assert_int_equal(hr_diagnosis_write_html(&diagnosis, "/nonexistent/x.html", &err), HR_IO);
    assert_non_null(strstr(err.message, "/nonexistent/x.html"));
    assert_int_equal(hr_diagnosis_write_html(&diagnosis, "/dev/full", &err), HR_IO);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_int_equal(hr_diagnosis_print(&diagnosis, full, &err), HR_IO);
    fclose(full);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(an_expert_is_measured_over_rows_and_neurons),
        WITH_FIXTURE(a_small_spread_about_a_large_mean_is_not_lost),
        WITH_FIXTURE(a_gates_entropy_is_told_from_its_rows),
        WITH_FIXTURE(the_own_experts_part_counts_the_self_gate),
        WITH_FIXTURE(an_experts_use_is_spread_over_the_gates_that_see_it),
        WITH_FIXTURE(a_tasks_output_is_averaged_behind_its_function),
        WITH_FIXTURE(a_healthy_network_has_no_findings),
        WITH_FIXTURE(what_overflows_is_said_and_spoils_no_other_verdict),
        WITH_FIXTURE(verdicts_follow_the_rows),
        WITH_FIXTURE(one_row_is_not_judged),
        WITH_FIXTURE(zeros_collapse_an_expert_from_ninety_percent),
        WITH_FIXTURE(an_expert_that_hardly_varies_is_constant),
        WITH_FIXTURE(an_expert_wider_than_its_peers_is_out_of_scale),
        WITH_FIXTURE(an_expert_narrower_than_its_peers_is_out_of_scale),
        WITH_FIXTURE(one_expert_that_takes_a_gate_is_found),
        WITH_FIXTURE(a_shared_expert_that_serves_one_gate_is_found),
        WITH_FIXTURE(an_expert_that_serves_nobody_is_unused),
        WITH_FIXTURE(a_self_gate_keeps_an_ignored_expert_from_underfitting),
        cmocka_unit_test(text_is_escaped_and_always_utf8),
        cmocka_unit_test(text_is_cut_at_characters_and_not_in_an_entity),
        WITH_FIXTURE(the_page_escapes_every_name_and_needs_nothing_else),
        WITH_FIXTURE(a_page_or_table_that_cannot_be_written_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
