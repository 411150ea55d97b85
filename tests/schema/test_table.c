/* The row of a text in a table (MODEL.md 3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "schema/schema.h"

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

static void a_hashed_row_is_one_plus_xxh64_modulo_the_rows_but_one(void **state) {
    (void)state;
    /* XXH64 with seed 0, from vectors published with other implementations. */
    static const struct {
        const char *text;
        uint64_t hash;
    } vectors[] = {
        {"a", UINT64_C(0xD24EC4F1A98C6E5B)},
        {"as", UINT64_C(0x1C330FB2D66BE179)},
        {"asd", UINT64_C(0x631C37CE72A97393)},
        {"asdf", UINT64_C(0x415872F599CEA71E)},
        {"abc", UINT64_C(0x44BC2CF5AD770999)},
        {"Call me Ishmael. Some years ago--never mind how long precisely-", UINT64_C(0x02A2E85470D6FD96)},
    };
    static const uint32_t rows[] = {2, 3, 64, 16384, 1000003, INT32_MAX};
    for (size_t i = 0; i < N_OF(vectors); i++)
        for (size_t j = 0; j < N_OF(rows); j++) {
            const hr_table table = {.name = "t", .rows = rows[j], .dim = 1, .index = HR_INDEX_HASH};
            assert_int_equal(hr_table_row(&table, vectors[i].text, strlen(vectors[i].text)),
                             1 + vectors[i].hash % (rows[j] - 1));
        }
}

static void a_hash_reads_every_byte_even_nul(void **state) {
    (void)state;
    const hr_table table = {.name = "t", .rows = INT32_MAX, .dim = 1, .index = HR_INDEX_HASH};
    assert_int_not_equal(hr_table_row(&table, "a\0b", 3), hr_table_row(&table, "a\0c", 3));
    assert_int_not_equal(hr_table_row(&table, "a\0b", 3), hr_table_row(&table, "a", 1));
}

static void a_direct_row_is_the_number_plus_one_where_the_table_has_it(void **state) {
    (void)state;
    static const struct {
        uint32_t rows;
        const char *text;
        uint32_t row;
    } cases[] = {
        {5, "0", 1},
        {5, "3", 4},
        {5, "4", 0},
        {5, "5", 0},
        {2, "0", 1},
        {2, "1", 0},
        {INT32_MAX, "2147483645", INT32_MAX - 1},
        {INT32_MAX, "2147483646", 0},
        {INT32_MAX, "4294967296", 0},           /* 2^32 */
        {INT32_MAX, "4294967297", 0},           /* 2^32 + 1 */
        {INT32_MAX, "9999999999", 0},           /* the longest that is read */
        {INT32_MAX, "18446744073709551617", 0}, /* 2^64 + 1 */
        {INT32_MAX, "100000000000000000000000000000000000000000000001", 0},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        const hr_table table = {.name = "t", .rows = cases[i].rows, .dim = 1, .index = HR_INDEX_DIRECT};
        assert_int_equal(hr_table_row(&table, cases[i].text, strlen(cases[i].text)), cases[i].row);
    }
}

static void a_text_that_is_no_shortest_decimal_has_row_0_in_a_direct_table(void **state) {
    (void)state;
    static const char *const texts[] = {"00",  "01",  "-0",  "-1", "+1", " 1", "1 ",
                                        "1.0", "1e0", "0x1", "a",  "1a", ":",  "/"};
    const hr_table table = {.name = "t", .rows = 100, .dim = 1, .index = HR_INDEX_DIRECT};
    for (size_t i = 0; i < N_OF(texts); i++)
        assert_int_equal(hr_table_row(&table, texts[i], strlen(texts[i])), 0);
    assert_int_equal(hr_table_row(&table, "1\0", 2), 0);
}

static void an_empty_text_has_row_0(void **state) {
    (void)state;
    hr_table table = {.name = "t", .rows = 100, .dim = 1, .index = HR_INDEX_HASH};
    assert_int_equal(hr_table_row(&table, "", 0), 0);
    table.index = HR_INDEX_DIRECT;
    assert_int_equal(hr_table_row(&table, "", 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hashed_row_is_one_plus_xxh64_modulo_the_rows_but_one),
        cmocka_unit_test(a_hash_reads_every_byte_even_nul),
        cmocka_unit_test(a_direct_row_is_the_number_plus_one_where_the_table_has_it),
        cmocka_unit_test(a_text_that_is_no_shortest_decimal_has_row_0_in_a_direct_table),
        cmocka_unit_test(an_empty_text_has_row_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
