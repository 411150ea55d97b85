/* Properties of the terminal table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> /* after what it needs */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/text_table.h"

static char *printed(const hr_text_table *table) {
    char *text = NULL;
    size_t nbytes;
    FILE *out = open_memstream(&text, &nbytes);
    assert_non_null(out);
    hr_text_table_print(table, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void columns_are_as_wide_as_their_widest_cell(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 20);
    hr_text_table *table = hr_text_table_create(arena, 2, 2);
    hr_text_table_column(table, "item", false);
    hr_text_table_column(table, "p", true);
    assert_true(hr_text_table_cell(table, "crème"));
    assert_true(hr_text_table_cellf(table, "%.2f", 0.5));
    assert_true(hr_text_table_cell(table, "a"));
    assert_true(hr_text_table_cell(table, "12.25"));
    char *text = printed(table);
    assert_string_equal(text, "item       p\n─────  ─────\ncrème   0.50\na      12.25\n");
    free(text);
    hr_arena_destroy(arena);
}

static void outside_bytes_cannot_steer_the_terminal(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 20);
    hr_text_table *table = hr_text_table_create(arena, 1, 1);
    hr_text_table_column(table, "item", false);
    assert_true(hr_text_table_cell(table, "\x1b[2J\r\n\xc2\x9b\xff\x7fz"));
    char *text = printed(table);
    assert_string_equal(text, "item\n──────────\n?[2J?????z\n");
    free(text);
    hr_arena_destroy(arena);
}

static void more_cells_than_rows_are_refused(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 20);
    hr_text_table *table = hr_text_table_create(arena, 1, 1);
    hr_text_table_column(table, "item", false);
    assert_true(hr_text_table_cell(table, "a"));
    assert_false(hr_text_table_cell(table, "b"));
    hr_arena_destroy(arena);
}

static void no_memory_is_said(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(64);
    assert_null(hr_text_table_create(arena, 100, 100));
    hr_arena_destroy(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
        cmocka_unit_test(outside_bytes_cannot_steer_the_terminal),
        cmocka_unit_test(more_cells_than_rows_are_refused),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
