/* `homerank inspect`: the text says what the model folder holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "service/inspect.h"
#include "tests/model/model_folder.h"

static char dir[256];

static int make_folder(void **state) {
    (void)state;
    test_tensors tensors = {0};
    test_folder_make(dir, sizeof dir);
    test_write_config(dir, test_tiny_config);
    test_tiny_tensors(&tensors, "batch");
    test_write_tensors(dir, &tensors);
    test_tensors_clear(&tensors);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    test_folder_remove(dir);
    return 0;
}

static void the_text_tells_the_network_and_its_work(void **state) {
    (void)state;
    static const char *const lines[] = {
        "network: activation swish, norm batch (eps 1e-05), tower activation relu\n",
        "  layer meta\n    unit shared\n      input         features (3)\n      feature gate  2 LoRAs of "
        "rank 2\n"
        "      experts       2 x 3 -> 4 -> 3\n      mix           shared, extra: 3 experts, self gate -> 3\n",
        "    unit extra\n      input         features (3)\n      experts       1 x 3 -> 3\n"
        "      mix           none: it lends its experts\n",
        "    unit click\n      input         meta.shared, features (6)\n      experts       1 x 6 -> 2\n"
        "      gate input    features (3)\n      mix           click: 1 expert, self gate -> 2\n",
        "    unit time\n      gate input    features (3)\n      mix           click: 1 expert -> 2\n",
        "\ntasks: 2\n",
        "task.click (2) -> 2 -> 1 -> sigmoid\n",
        "task.time (2) -> 1 -> identity\n",
        "\ntables: 1\n",
        "\nfeatures: 2, v has D = 3\n  v[0:2]  user_id: id of user.user_id, table user\n",
        "  v[2:3]  price: number of item.price, (x - 0) / 1\n",
        /* Experts 2(12 + 12) + 9 + 12, feature gate 2(2 * 6 + 3), gates 9 + 6 + 3, towers 4 + 2 + 2; twice.
         */
        "FLOPs per item: 250 (experts 55 %, feature gates 24 %, gates 14 %, towers 6 %)\n",
        ", embeddings 8\n",
    };
    char *text = NULL;
    size_t nbytes;
    hr_error err = {0};
    FILE *out = open_memstream(&text, &nbytes);
    assert_non_null(out);
    if (hr_inspect(dir, out, &err) != HR_OK) fail_msg("%s", err.message);
    fclose(out);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (strstr(text, lines[i]) == NULL) fail_msg("not found: %s\nin:\n%s", lines[i], text);
    }
    free(text);
}

static void a_broken_folder_is_refused_and_a_full_disk_said(void **state) {
    (void)state;
    hr_error err = {0};
    assert_int_equal(hr_inspect("/nonexistent", stdout, &err), HR_IO);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_int_equal(hr_inspect(dir, full, &err), HR_IO);
    assert_non_null(strstr(err.message, "cannot write"));
    fclose(full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_tells_the_network_and_its_work),
        cmocka_unit_test(a_broken_folder_is_refused_and_a_full_disk_said),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
