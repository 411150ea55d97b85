/* The Redis protocol's reader: the same events however the bytes are cut, and an error for what Redis would
 * never send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "features/redis_reader.h"
#include "features/redis_value.h"

/* The events written down as text, the pieces of a text joined. */
typedef struct journal {
    char text[1 << 20];
    size_t n;
    size_t stop_after; /* events; 0: never */
    size_t n_events;
    hr_redis_tree tree;
} journal;

static bool wrote(journal *j) {
    assert_true(j->n < sizeof j->text - 1024);
    return ++j->n_events != j->stop_after;
}

static void head(journal *j, hr_redis_place place) {
    j->n += (size_t)sprintf(j->text + j->n, "%u.%zu", place.depth, place.index);
}

static bool on_array(void *context, hr_redis_place place, size_t n_elements) {
    journal *j = context;
    head(j, place);
    j->n += (size_t)sprintf(j->text + j->n, "*%zu ", n_elements);
    return hr_redis_tree_array(&j->tree, place, n_elements) && wrote(j);
}

static bool on_text(void *context, hr_redis_place place, const hr_redis_piece *piece) {
    journal *j = context;
    if (piece->offset == 0) {
        head(j, place);
        j->text[j->n++] = '$';
    }
    assert_true(piece->offset + piece->nbytes <= piece->total);
    assert_true(j->n + piece->nbytes < sizeof j->text - 1024);
    memcpy(j->text + j->n, piece->bytes, piece->nbytes);
    j->n += piece->nbytes;
    if (piece->offset + piece->nbytes == piece->total) j->text[j->n++] = ' ';
    return hr_redis_tree_text(&j->tree, place, piece) && wrote(j);
}

static bool on_line(void *context, hr_redis_place place, bool is_error, const char *text, size_t nbytes) {
    journal *j = context;
    head(j, place);
    j->n += (size_t)sprintf(j->text + j->n, "%c%.*s ", is_error ? '-' : '+', (int)nbytes, text);
    return hr_redis_tree_line(&j->tree, place, is_error, text, nbytes) && wrote(j);
}

static bool on_integer(void *context, hr_redis_place place, int64_t value) {
    journal *j = context;
    head(j, place);
    j->n += (size_t)sprintf(j->text + j->n, ":%lld ", (long long)value);
    hr_redis_tree_integer(&j->tree, place, value);
    return wrote(j);
}

static bool on_nil(void *context, hr_redis_place place) {
    journal *j = context;
    head(j, place);
    j->n += (size_t)sprintf(j->text + j->n, "nil ");
    return wrote(j);
}

static bool on_end(void *context) {
    journal *j = context;
    j->n += (size_t)sprintf(j->text + j->n, "end ");
    return wrote(j);
}

static const hr_redis_reader_i journal_i = {on_array, on_text, on_line, on_integer, on_nil, on_end};

static journal *shared;
static hr_arena *arena;

static int start(void **state) {
    (void)state;
    shared = malloc(sizeof *shared);
    arena = hr_arena_create(8 << 20);
    return shared == NULL || arena == NULL;
}

static int stop(void **state) {
    (void)state;
    free(shared);
    hr_arena_destroy(arena);
    return 0;
}

/* Reads the bytes in pieces of `step`, each in memory of its own, so that a sanitizer sees a read past it. */
static hr_redis_read read_in_steps(hr_redis_reader *reader, const char *bytes, size_t nbytes, size_t step) {
    shared->n = shared->n_events = 0;
    hr_arena_reset(arena);
    hr_redis_tree_begin(&shared->tree, arena);
    hr_redis_reader_init(reader, &journal_i, shared);
    hr_redis_read read = HR_REDIS_READ_ALL;
    for (size_t at = 0; at < nbytes && read == HR_REDIS_READ_ALL; at += step) {
        size_t n = nbytes - at < step ? nbytes - at : step;
        char *piece = malloc(n);
        memcpy(piece, bytes + at, n);
        read = hr_redis_reader_feed(reader, piece, n);
        free(piece);
    }
    shared->text[shared->n] = '\0';
    return read;
}

static void events_do_not_depend_on_how_the_bytes_are_cut(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *events;
    } cases[] = {
        {"+OK\r\n", "0.0+OK end "},
        {"-ERR no\r\n", "0.0-ERR no end "},
        {":-9223372036854775808\r\n", "0.0:-9223372036854775808 end "},
        {":9223372036854775807\r\n:0\r\n", "0.0:9223372036854775807 end 0.0:0 end "},
        {"$-1\r\n*-1\r\n", "0.0nil end 0.0nil end "},
        {"$0\r\n\r\n$4\r\n\r\n\r\n\r\n", "0.0$ end 0.0$\r\n\r\n end "},
        {"*0\r\n", "0.0*0 end "},
        {"*3\r\n$1\r\na\r\n$-1\r\n$2\r\nbc\r\n", "0.0*3 1.0$a 1.1nil 1.2$bc end "},
        {"*2\r\n*2\r\n*0\r\n:1\r\n*1\r\n+x\r\n+y\r\n", "0.0*2 1.0*2 2.0*0 2.1:1 1.1*1 2.0+x end 0.0+y end "},
        {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
         "0.0*1 1.0*1 2.0*1 3.0*1 4.0*1 5.0*1 6.0*1 7.0*0 end "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t step = 1; step <= strlen(cases[i].bytes); step++) {
            hr_redis_reader reader;
            hr_redis_read read = read_in_steps(&reader, cases[i].bytes, strlen(cases[i].bytes), step);
            if (read != HR_REDIS_READ_ALL) fail_msg("case %zu, steps of %zu: %s", i, step, reader.error);
            assert_string_equal(shared->text, cases[i].events);
        }
}

static void what_redis_would_not_send_is_an_error(void **state) {
    (void)state;
    static const char *const cases[] = {
        "x\r\n",
        "\r\n",
        "\n",
        "$\r\n",
        "$+1\r\n",
        "$01\r\n",
        "$-0\r\n",
        "$-2\r\n",
        "$1 \r\n",
        "$536870913\r\n",
        "$18446744073709551617\r\n",
        "*2147483648\r\n",
        "*-2\r\n",
        "*1x\r\n",
        ":\r\n",
        ":-\r\n",
        ":9223372036854775808\r\n",
        ":-9223372036854775809\r\n",
        ":1\n",
        "+OK\n",
        "$1\r\nab\r\n",
        "$1\r\na\n\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t step = 1; step <= strlen(cases[i]); step++) {
            hr_redis_reader reader;
            if (read_in_steps(&reader, cases[i], strlen(cases[i]), step) != HR_REDIS_READ_INVALID)
                fail_msg("%s passes in steps of %zu: %s", cases[i], step, shared->text);
            assert_non_null(strstr(reader.error, ", found "));
        }
}

static void a_line_is_told_as_far_as_it_fits_and_ends_somewhere(void **state) {
    (void)state;
    static char long_line[HR_REDIS_MAX_LINE_NBYTES + 100];
    for (size_t nbytes = HR_REDIS_LINE_SIZE - 3; nbytes < HR_REDIS_LINE_SIZE + 3; nbytes++)
        for (size_t step = 1; step < nbytes + 10; step += 7) {
            hr_redis_reader reader;
            memset(long_line, 'x', sizeof long_line);
            long_line[0] = '-';
            memcpy(long_line + nbytes - 2, "\r\n", 2);
            assert_int_equal(read_in_steps(&reader, long_line, nbytes, step), HR_REDIS_READ_ALL);
            size_t told = nbytes - 3 < HR_REDIS_LINE_SIZE - 2 ? nbytes - 3 : HR_REDIS_LINE_SIZE - 2;
            assert_int_equal(shared->n, strlen("0.0- end ") + told);
        }
    hr_redis_reader reader;
    memset(long_line, 'x', sizeof long_line);
    long_line[0] = '+';
    assert_int_equal(read_in_steps(&reader, long_line, sizeof long_line, 1000), HR_REDIS_READ_INVALID);
}

static void an_event_may_stop_the_reader(void **state) {
    (void)state;
    static const char bytes[] = "*3\r\n$1\r\na\r\n$-1\r\n:7\r\n+OK\r\n-no\r\n";
    enum { N_EVENTS = 9 };
    for (size_t stop = 1; stop <= N_EVENTS; stop++) {
        hr_redis_reader reader;
        shared->stop_after = stop;
        assert_int_equal(read_in_steps(&reader, bytes, sizeof bytes - 1, 5), HR_REDIS_READ_STOPPED);
        assert_int_equal(shared->n_events, stop);
    }
    shared->stop_after = 0;
}

static void a_reply_becomes_a_tree(void **state) {
    (void)state;
    static const char bytes[] = "*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n$-1\r\n-ERR x\r\n*0\r\n";
    for (size_t step = 1; step < sizeof bytes; step++) {
        hr_redis_reader reader;
        assert_int_equal(read_in_steps(&reader, bytes, sizeof bytes - 1, step), HR_REDIS_READ_ALL);
        const hr_redis_value *root = &shared->tree.root;
        assert_int_equal(root->type, HR_REDIS_ARRAY);
        assert_int_equal(root->n_elements, 4);
        assert_true(hr_redis_value_is(&root->elements[0], "slots"));
        assert_false(hr_redis_value_is(&root->elements[0], "slot"));
        assert_int_equal(root->elements[1].elements[0].integer, 0);
        assert_int_equal(root->elements[1].elements[1].type, HR_REDIS_NIL);
        assert_int_equal(root->elements[2].type, HR_REDIS_ERROR);
        assert_string_equal(root->elements[2].text, "ERR x");
        assert_false(hr_redis_value_is(&root->elements[2], "ERR x"));
        assert_int_equal(root->elements[3].n_elements, 0);
    }
}

static void a_tree_ends_where_its_arena_does(void **state) {
    (void)state;
    static const char *const cases[] = {"*2147483647\r\n", "$500000000\r\nx", "*1\r\n*2147483647\r\n"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hr_redis_reader reader;
        assert_int_equal(read_in_steps(&reader, cases[i], strlen(cases[i]), 100), HR_REDIS_READ_STOPPED);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_do_not_depend_on_how_the_bytes_are_cut),
        cmocka_unit_test(what_redis_would_not_send_is_an_error),
        cmocka_unit_test(a_line_is_told_as_far_as_it_fits_and_ends_somewhere),
        cmocka_unit_test(an_event_may_stop_the_reader),
        cmocka_unit_test(a_reply_becomes_a_tree),
        cmocka_unit_test(a_tree_ends_where_its_arena_does),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
