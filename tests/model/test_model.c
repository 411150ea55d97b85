/* Loading a model folder: the tensors it must have, what they become, and the model's life (MODEL.md 1, 2,
 * 5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/model.h"
#include "tests/model/model_folder.h"
#include "tests/model/tiny_evaluation.h"

static const hr_model_options options = {
    .backend = "reference", .precision = HR_PRECISION_F32, .n_workers = 2};
static char dir[256];

static int make_folder(void **state) {
    (void)state;
    test_folder_make(dir, sizeof dir);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    test_folder_remove(dir);
    return 0;
}

static hr_model *load_ok(void) {
    hr_model *model;
    hr_error err = {0};
    if (hr_model_load(dir, "tiny", 7, &options, &model, &err) != HR_OK) fail_msg("%s", err.message);
    return model;
}

/* The folder as it stands is refused for this reason. */
static void expect_refused(const char *message) {
    hr_model *model;
    hr_error err = {0};
    hr_status status = hr_model_load(dir, "tiny", 7, &options, &model, &err);
    if (status != HR_INVALID_ARGUMENT || strstr(err.message, message) == NULL) {
        fail_msg("expected \"%s\", found %d \"%s\"", message, status, err.message);
    }
    assert_null(model);
}

static void write_tiny(test_tensors *tensors, const char *norm) {
    char norm_json[32];
    snprintf(norm_json, sizeof norm_json, "\"norm\": \"%s\"", norm);
    char *config = test_replace(test_tiny_config, "\"norm\": \"batch\"", norm_json);
    test_write_config(dir, config);
    free(config);
    if (tensors->n == 0) test_tiny_tensors(tensors, norm);
    test_write_tensors(dir, tensors);
}

/* Logits of two rows in one slice agree with the evaluation in double, which folds nothing. */
static void check_against_evaluation(const hr_model *model, test_tensors *tensors, const char *norm) {
    uint32_t user[1] = {2}, context[1] = {0};
    float prices[2] = {0.75F, -3.0F}, logits[4];
    hr_slice slice = {.user = user, .context = context, .items = prices, .n_rows = 2, .logits = logits};
    hr_error err;
    assert_int_equal(hr_row_words(hr_model_schema(model), HR_ENTITY_ITEM), 1);
    assert_int_equal(hr_model_forward(model, 1, &slice, 1, &err), HR_OK);
    for (size_t i = 0; i < 2; i++) {
        double expected[2];
        test_tiny_evaluate(tensors, norm, 2, prices[i], expected);
        for (size_t t = 0; t < 2; t++) {
            double difference = fabs(logits[i * 2 + t] - expected[t]);
            if (!(difference <= 2e-6 * fmax(1.0, fabs(expected[t])))) {
                fail_msg("%s: row %zu task %zu: expected %.9g, found %.9g", norm, i, t, expected[t],
                         (double)logits[i * 2 + t]);
            }
        }
    }
}

static void every_norm_agrees_with_its_unfolded_form(void **state) {
    (void)state;
    static const char *const norms[] = {"batch", "layer", "none"};
    for (size_t i = 0; i < 3; i++) {
        test_tensors tensors = {0};
        write_tiny(&tensors, norms[i]);
        hr_model *model = load_ok();
        assert_string_equal(hr_model_norm(model), norms[i]);
        check_against_evaluation(model, &tensors, norms[i]);
        hr_model_unref(model);
        test_tensors_clear(&tensors);
    }
}

static void every_dtype_gives_the_same_network(void **state) {
    (void)state;
    static const char *const dtypes[] = {"F16", "BF16"};
    for (size_t i = 0; i < 2; i++) {
        test_tensors tensors = {0};
        test_tiny_tensors(&tensors, "batch");
        for (size_t t = 0; t < tensors.n; t++) tensors.list[t].dtype = dtypes[i];
        write_tiny(&tensors, "batch");
        hr_model *model = load_ok();
        check_against_evaluation(model, &tensors, "batch");
        hr_model_unref(model);
        test_tensors_clear(&tensors);
    }
}

static void a_missing_tensor_is_named(void **state) {
    (void)state;
    static const char *const norms[] = {"batch", "layer"};
    for (size_t n = 0; n < 2; n++) {
        test_tensors all = {0};
        test_tiny_tensors(&all, norms[n]);
        for (size_t i = 0; i < all.n; i++) {
            test_tensors tensors = {0};
            char message[160];
            test_tiny_tensors(&tensors, norms[n]);
            test_tensors_remove(&tensors, all.list[i].name);
            write_tiny(&tensors, norms[n]);
            snprintf(message, sizeof message, "model.safetensors: tensor %s: expected [", all.list[i].name);
            expect_refused(message);
            expect_refused("found none");
            test_tensors_clear(&tensors);
        }
        test_tensors_clear(&all);
    }
}

static void a_surplus_tensor_is_named(void **state) {
    (void)state;
    /* Among them the gate that a mix of one expert has not, and experts of a unit that has none. */
    static const char *const names[] = {"x",
                                        "embedding.item.weight",
                                        "tower.click.2.weight",
                                        "task.click.gate.weight",
                                        "meta.shared.expert.0.norm.num_batches_tracked",
                                        "task.time.expert.0.weight"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        test_tensors tensors = {0};
        char message[160];
        test_tiny_tensors(&tensors, "batch");
        test_tensors_add(&tensors, names[i], "F32", 2, (uint64_t[]){2, 3});
        write_tiny(&tensors, "batch");
        snprintf(message, sizeof message,
                 "model tiny@7: model.safetensors: tensor \"%s\": expected none of that name by config.json, "
                 "found F32 [2, 3]",
                 names[i]);
        expect_refused(message);
        test_tensors_clear(&tensors);
    }
    test_tensors tensors = {0};
    test_tiny_tensors(&tensors, "layer");
    test_tensors_add(&tensors, "meta.extra.expert.0.norm.running_mean", "F32", 2, (uint64_t[]){1, 3});
    write_tiny(&tensors, "layer");
    expect_refused("\"meta.extra.expert.0.norm.running_mean\": expected none");
    test_tensors_clear(&tensors);
}

static void a_wrong_shape_or_dtype_is_named(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint32_t n_dims;
        uint64_t shape[4];
        const char *dtype, *message;
    } rows[] = {
        {"meta.shared.expert.0.weight",
         3,
         {2, 3, 4},
         "F32",
         "tensor meta.shared.expert.0.weight: expected shape [2, 4, 3], found [2, 3, 4]"},
        {"meta.shared.expert.0.weight", 2, {8, 3}, "F32", "expected shape [2, 4, 3], found [8, 3]"},
        {"meta.extra.expert.0.bias", 1, {3}, "F32", "expected shape [1, 3], found [3]"},
        {"tower.time.0.bias", 0, {0}, "F32", "expected shape [1], found []"},
        {"tower.time.0.bias", 2, {1, 1}, "F32", "expected shape [1], found [1, 1]"},
        {"embedding.user.weight", 2, {5, 2}, "F32", "expected shape [4, 2], found [5, 2]"},
        {"meta.shared.gate.bias", 1, {0}, "F32", "expected shape [3], found [0]"},
        {"meta.shared.feature_gate.up", 3, {2, 2, 3}, "F32", "expected shape [2, 3, 2], found [2, 2, 3]"},
        {"meta.shared.gate.bias",
         1,
         {3},
         "I16",
         "tensor \"meta.shared.gate.bias\": dtype: expected F32, F16 or BF16, found \"I16\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        test_tensors tensors = {0};
        test_tiny_tensors(&tensors, "batch");
        test_tensors_remove(&tensors, rows[i].name);
        test_tensors_add(&tensors, rows[i].name, rows[i].dtype, rows[i].n_dims, rows[i].shape);
        write_tiny(&tensors, "batch");
        expect_refused(rows[i].message);
        test_tensors_clear(&tensors);
    }
}

static void bad_numbers_are_named(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t index;
        float value;
        const char *message;
    } rows[] = {
        {"tower.time.0.weight", 1, NAN,
         "tensor \"tower.time.0.weight\": expected finite values, found nan at index 1"},
        {"embedding.user.weight", 7, -INFINITY,
         "tensor \"embedding.user.weight\": expected finite values, found -inf at index 7"},
        {"meta.extra.expert.0.norm.running_var", 2, -0.5F,
         "tensor meta.extra.expert.0.norm.running_var: expected values >= 0, and > 0 with norm_eps added, "
         "found -0.5 at index 2"},
        {"meta.extra.expert.0.norm.running_var", 1, -1e-6F,
         "found -1e-06 at index 1"}, /* norm_eps is larger */
        {"meta.extra.expert.0.norm.weight", 0, 3e38F,
         "expected values that stay finite with the norm folded in"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        test_tensors tensors = {0};
        test_tiny_tensors(&tensors, "batch");
        /* Large enough for the fold of 3e38 to overflow. */
        test_tensors_find(&tensors, "meta.extra.expert.0.weight")->values[0] = 100.0F;
        test_tensors_find(&tensors, rows[i].name)->values[rows[i].index] = rows[i].value;
        write_tiny(&tensors, "batch");
        expect_refused(rows[i].message);
        test_tensors_clear(&tensors);
    }
}

/* A variance of 0 is a constant input in training; norm_eps keeps it from dividing by 0, if there is one. */
static void a_variance_of_zero_needs_an_eps(void **state) {
    (void)state;
    test_tensors tensors = {0};
    test_tiny_tensors(&tensors, "batch");
    test_tensors_find(&tensors, "meta.extra.expert.0.norm.running_var")->values[0] = 0.0F;
    write_tiny(&tensors, "batch");
    hr_model *model = load_ok();
    check_against_evaluation(model, &tensors, "batch");
    hr_model_unref(model);
    char *config = test_replace(test_tiny_config, "\"norm_eps\": 1e-5", "\"norm_eps\": 0");
    test_write_config(dir, config);
    expect_refused("found 0 at index 0");
    free(config);
    test_tensors_clear(&tensors);
}

/* A config that calls for more than any file has is refused by the file's shapes, before memory is asked for.
 */
static void a_config_cannot_demand_memory(void **state) {
    (void)state;
    test_tensors tensors = {0};
    write_tiny(&tensors, "batch");
    char *config =
        test_replace(test_tiny_config, "\"rows\": 4, \"dim\": 2", "\"rows\": 2000000000, \"dim\": 2");
    test_write_config(dir, config);
    expect_refused("embedding.user.weight: expected shape [2000000000, 2], found [4, 2]");
    free(config);
    config = test_replace(test_tiny_config, "\"experts\": 2, \"hidden\": [4, 3]",
                          "\"experts\": 100, \"hidden\": [65536, 3]");
    test_write_config(dir, config);
    expect_refused("meta.shared.expert.0.weight: expected shape [100, 65536, 3], found [2, 4, 3]");
    free(config);
    test_tensors_clear(&tensors);
}

/* Adds a tensor of zeros, (rows, dim), to dir's file: a hole, which takes no room on disk. */
static void add_hole(const char *name, uint64_t rows, uint64_t dim) {
    char path[300], entry[256];
    uint64_t nbytes, size = rows * dim * sizeof(float);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(&nbytes, sizeof nbytes, 1, file), 1);
    char *header = calloc(nbytes + 1, 1), data[8192];
    assert_int_equal(fread(header, 1, nbytes, file), nbytes);
    size_t n_data = fread(data, 1, sizeof data, file);
    assert_true(n_data < sizeof data);
    fclose(file);
    snprintf(entry, sizeof entry,
             ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%llu,%llu],\"data_offsets\":[%zu,%zu]}}", name,
             (unsigned long long)rows, (unsigned long long)dim, n_data, (size_t)(n_data + size));
    *strrchr(header, '}') = '\0';
    file = fopen(path, "wb");
    nbytes = strlen(header) + strlen(entry);
    fwrite(&nbytes, sizeof nbytes, 1, file);
    fputs(header, file);
    fputs(entry, file);
    fwrite(data, 1, n_data, file);
    fflush(file);
    assert_int_equal(ftruncate(fileno(file), (off_t)(sizeof nbytes + nbytes + n_data + size)), 0);
    fclose(file);
    free(header);
}

/* A file may hold more than the machine: then the load is refused before it takes anything. */
static void what_the_machine_cannot_hold_is_refused_with_the_bytes(void **state) {
    (void)state;
    test_tensors tensors = {0};
    write_tiny(&tensors, "batch");
    char *config =
        test_replace(test_tiny_config, "\"tables\": {",
                     "\"tables\": {\"vast\": {\"rows\": 2147483647, \"dim\": 1024, \"index\": \"hash\"}, ");
    test_write_config(dir, config);
    add_hole("embedding.vast.weight", 2147483647, 1024);
    hr_model *model;
    hr_error err;
    assert_int_equal(hr_model_load(dir, "m", 1, &options, &model, &err), HR_OUT_OF_MEMORY);
    unsigned long long needed = 0, available = 0;
    const char *says = strstr(err.message, "need ");
    if (says == NULL ||
        sscanf(says, "need %llu bytes of memory, %llu are available", &needed, &available) != 2)
        fail_msg("%s", err.message);
    assert_true(needed > 2147483647ull * 1024 * sizeof(float));
    assert_true(available < needed);
    free(config);
    test_tensors_clear(&tensors);
}

static void a_load_that_is_cancelled_ends(void **state) {
    (void)state;
    test_tensors tensors = {0};
    write_tiny(&tensors, "batch");
    atomic_bool cancelled;
    atomic_init(&cancelled, true);
    hr_model_options with = options;
    with.cancelled = &cancelled;
    hr_model *model;
    hr_error err;
    assert_int_equal(hr_model_load(dir, "m", 1, &with, &model, &err), HR_CANCELLED);
    assert_null(model);
    atomic_store(&cancelled, false);
    assert_int_equal(hr_model_load(dir, "m", 1, &with, &model, &err), HR_OK);
    hr_model_unref(model);
    test_tensors_clear(&tensors);
}

static void a_folder_without_its_files_is_an_io_error(void **state) {
    (void)state;
    char empty[256];
    hr_model *model;
    hr_error err;
    test_folder_make(empty, sizeof empty);
    assert_int_equal(hr_model_load(empty, "m", 1, &options, &model, &err), HR_IO);
    assert_non_null(strstr(err.message, "model m@1: config.json: cannot open"));
    test_write_config(empty, test_tiny_config);
    assert_int_equal(hr_model_load(empty, "m", 1, &options, &model, &err), HR_IO);
    assert_non_null(strstr(err.message, "model m@1: model.safetensors: cannot open"));
    test_folder_remove(empty);
}

static void a_backend_that_cannot_is_said(void **state) {
    (void)state;
    test_tensors tensors = {0};
    write_tiny(&tensors, "batch");
    hr_model_options other = options;
    hr_model *model;
    hr_error err;
    other.backend = "abacus";
    assert_int_equal(hr_model_load(dir, "m", 1, &other, &model, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "found \"abacus\""));
    other.backend = "reference";
    other.precision = HR_PRECISION_BF16;
    assert_int_equal(hr_model_load(dir, "m", 1, &other, &model, &err), HR_UNIMPLEMENTED);
    test_tensors_clear(&tensors);
}

static void parts_are_those_of_the_folder(void **state) {
    (void)state;
    test_tensors tensors = {0};
    write_tiny(&tensors, "batch");
    hr_model *model = load_ok();
    assert_string_equal(hr_model_name(model), "tiny");
    assert_int_equal(hr_model_version(model), 7);
    assert_string_equal(hr_model_label(model), "tiny@7");
    assert_int_equal(hr_model_task(model, "time"), 1);
    assert_int_equal(hr_model_task(model, "buy"), -1);
    assert_string_equal(hr_engine_backend(hr_model_engine(model)), "reference");
    /* Parameters: what training learns, so without the running statistics. */
    uint64_t embeddings, network = 0;
    for (size_t i = 0; i < tensors.n; i++) {
        bool learned = strstr(tensors.list[i].name, "running_") == NULL &&
                       strstr(tensors.list[i].name, "embedding.") == NULL;
        if (learned) network += test_tensor_size(&tensors.list[i]);
    }
    assert_int_equal(hr_model_parameters(model, &embeddings), network);
    assert_int_equal(embeddings, 8);
    hr_model_unref(model);
    test_tensors_clear(&tensors);
}

static void note_destroyed(void *attachment) {
    ++*(int *)attachment;
}

static void an_attachment_lives_as_long_as_the_last_reference(void **state) {
    (void)state;
    int destroyed = 0;
    test_tensors tensors = {0};
    write_tiny(&tensors, "batch");
    hr_model *model = load_ok();
    assert_null(hr_model_attachment(model));
    hr_model_attach(model, &destroyed, note_destroyed);
    assert_ptr_equal(hr_model_attachment(model), &destroyed);
    hr_model *second = hr_model_ref(model);
    hr_model_unref(model);
    assert_int_equal(destroyed, 0);
    /* The files may go: a loaded model needs them no more. */
    char path[300];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    check_against_evaluation(second, &tensors, "batch");
    hr_model_unref(second);
    assert_int_equal(destroyed, 1);
    hr_model_unref(NULL);
    test_tensors_clear(&tensors);
}

static void note_retired(void *arg) {
    ++*(int *)arg;
}

static void the_last_reference_retires_a_model_instead_of_destroying_it(void **state) {
    (void)state;
    int retired = 0, destroyed = 0;
    test_tensors tensors = {0};
    write_tiny(&tensors, "batch");
    hr_model *model = load_ok();
    hr_model_attach(model, &destroyed, note_destroyed);
    hr_model_on_last_unref(model, note_retired, &retired);
    hr_model_unref(hr_model_ref(model));
    assert_int_equal(retired, 0);
    hr_model_unref(model);
    assert_int_equal(retired, 1);
    assert_int_equal(destroyed, 0);
    hr_model_destroy(model);
    assert_int_equal(destroyed, 1);
    test_tensors_clear(&tensors);
}

static void folders_are_named_by_version_and_parent(void **state) {
    (void)state;
    static const struct {
        const char *path, *name;
        uint64_t version;
    } rows[] = {
        {"home/3", "home", 3},
        {"home/3/", "home", 3},
        {"home/3/.", "home", 3},
        {"home/03", "03", 1},
        {"home/0", "0", 1},
        {"home/plain", "plain", 1},
        {"home/../home", "home", 1},
        {"home/3/../plain", "plain", 1},
        {"home/-1", "-1", 1},
        {"home/99999999999999999999", "99999999999999999999", 1},
        {"home/18446744073709551615", "home", UINT64_MAX},
    };
    static const char *const folders[] = {"home",
                                          "home/3",
                                          "home/03",
                                          "home/0",
                                          "home/plain",
                                          "home/-1",
                                          "home/99999999999999999999",
                                          "home/18446744073709551615"};
    char base[256], path[512], name[64];
    uint64_t version;
    hr_error err = {0};
    test_folder_make(base, sizeof base);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) test_folder_sub(base, folders[i]);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", base, rows[i].path);
        if (hr_model_identify(path, name, sizeof name, &version, &err) != HR_OK) fail_msg("%s", err.message);
        assert_string_equal(name, rows[i].name);
        assert_true(version == rows[i].version);
    }
    snprintf(path, sizeof path, "%s/nothing", base);
    assert_int_equal(hr_model_identify(path, name, sizeof name, &version, &err), HR_IO);
    snprintf(path, sizeof path, "%s/home/plain", base);
    assert_int_equal(hr_model_identify(path, name, 5, &version, &err), HR_INVALID_ARGUMENT);
    assert_int_equal(hr_model_identify("/", name, sizeof name, &version, &err), HR_INVALID_ARGUMENT);
    test_folder_sub(base, "\xff");
    snprintf(path, sizeof path, "%s/\xff", base);
    assert_int_equal(hr_model_identify(path, name, sizeof name, &version, &err), HR_INVALID_ARGUMENT);
    test_folder_remove(base);
}

typedef struct runner {
    const hr_model *model;
    uint32_t worker;
    float logits[2 * 200];
} runner;

static void *run_worker(void *arg) {
    runner *r = arg;
    uint32_t user[1] = {1}, context[1] = {0};
    float prices[200];
    hr_error err;
    hr_model *own = hr_model_ref((hr_model *)r->model);
    for (int i = 0; i < 200; i++) prices[i] = (float)i * 0.01F;
    hr_slice slice = {.user = user, .context = context, .items = prices, .n_rows = 200, .logits = r->logits};
    void *failed = hr_model_forward(own, r->worker, &slice, 1, &err) == HR_OK ? NULL : arg;
    hr_model_unref(own);
    return failed;
}

static void workers_run_side_by_side(void **state) {
    (void)state;
    test_tensors tensors = {0};
    write_tiny(&tensors, "batch");
    hr_model *model = load_ok();
    runner runners[2] = {{.model = model, .worker = 0}, {.model = model, .worker = 1}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_worker, &runners[i]), 0);
    for (int i = 0; i < 2; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_memory_equal(runners[0].logits, runners[1].logits, sizeof runners[0].logits);
    hr_model_unref(model);
    test_tensors_clear(&tensors);
}

/* The trained model that real requests are served with, where it is at hand. */
static void the_trained_model_has_its_size(void **state) {
    (void)state;
    const char *shared = getenv("HOMERANK_SHARED");
    if (shared == NULL) skip();
    char path[512];
    uint64_t embeddings;
    hr_model *model;
    hr_error err = {0};
    snprintf(path, sizeof path, "%s/models/kuairand/1", shared);
    if (hr_model_load(path, "kuairand", 1, &options, &model, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(hr_model_parameters(model, &embeddings), 1260717);
    assert_int_equal(embeddings, 1662772);
    assert_int_equal(hr_model_schema(model)->width, 376);
    assert_int_equal(hr_model_plan(model)->n_tasks, 7);
    hr_model_unref(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_norm_agrees_with_its_unfolded_form),
        cmocka_unit_test(every_dtype_gives_the_same_network),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_surplus_tensor_is_named),
        cmocka_unit_test(a_wrong_shape_or_dtype_is_named),
        cmocka_unit_test(bad_numbers_are_named),
        cmocka_unit_test(a_variance_of_zero_needs_an_eps),
        cmocka_unit_test(a_config_cannot_demand_memory),
        cmocka_unit_test(what_the_machine_cannot_hold_is_refused_with_the_bytes),
        cmocka_unit_test(a_load_that_is_cancelled_ends),
        cmocka_unit_test(a_folder_without_its_files_is_an_io_error),
        cmocka_unit_test(a_backend_that_cannot_is_said),
        cmocka_unit_test(parts_are_those_of_the_folder),
        cmocka_unit_test(an_attachment_lives_as_long_as_the_last_reference),
        cmocka_unit_test(workers_run_side_by_side),
        cmocka_unit_test(the_last_reference_retires_a_model_instead_of_destroying_it),
        cmocka_unit_test(folders_are_named_by_version_and_parent),
        cmocka_unit_test(the_trained_model_has_its_size),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
