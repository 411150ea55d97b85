/* The order of calls and the work before them, against a plain sorted list. */
#include "service/deadline_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_NODES = 200, N_STEPS = 20000, N_KEYS = 40 };

typedef struct model {
    hr_deadline_tree tree;
    hr_deadline_node nodes[N_NODES];
    bool inside[N_NODES];
    uint64_t random;
} model;

static uint64_t draw(model *m, uint64_t below) {
    m->random = m->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (m->random >> 33) % below;
}

static const hr_deadline_node *first_of(const model *m) {
    const hr_deadline_node *first = NULL;
    for (size_t i = 0; i < N_NODES; i++) {
        const hr_deadline_node *node = &m->nodes[i];
        if (!m->inside[i]) continue;
        if (first == NULL || node->key_ns < first->key_ns ||
            (node->key_ns == first->key_ns && node->sequence < first->sequence))
            first = node;
    }
    return first;
}

static uint64_t work_until(const model *m, uint64_t key_ns) {
    uint64_t work_ns = 0;
    for (size_t i = 0; i < N_NODES; i++)
        if (m->inside[i] && m->nodes[i].key_ns <= key_ns) work_ns += m->nodes[i].work_ns;
    return work_ns;
}

static void step(model *m, uint64_t sequence) {
    size_t i = draw(m, N_NODES);
    hr_deadline_node *node = &m->nodes[i];
    if (!m->inside[i]) {
        node->key_ns = draw(m, N_KEYS); /* many are equal */
        node->sequence = sequence;
        node->work_ns = draw(m, 1000);
        hr_deadline_tree_insert(&m->tree, node);
        m->inside[i] = true;
    } else if (draw(m, 2) == 0) {
        hr_deadline_tree_set_work(node, draw(m, 1000));
    } else {
        hr_deadline_tree_remove(&m->tree, node);
        m->inside[i] = false;
    }
}

static void first_and_sums_are_those_of_a_list(void **state) {
    (void)state;
    model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (uint64_t i = 0; i < N_STEPS; i++) {
        step(m, i);
        assert_ptr_equal(hr_deadline_tree_first(&m->tree), first_of(m));
        uint64_t key_ns = draw(m, N_KEYS + 1);
        assert_int_equal(hr_deadline_tree_work_until(&m->tree, key_ns), work_until(m, key_ns));
        assert_int_equal(hr_deadline_tree_work_until(&m->tree, UINT64_MAX), work_until(m, UINT64_MAX));
    }
    free(m);
}

static void emptied_from_the_front_the_nodes_come_in_order(void **state) {
    (void)state;
    model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (size_t i = 0; i < N_NODES; i++) {
        m->nodes[i] = (hr_deadline_node){.key_ns = draw(m, N_KEYS), .sequence = i, .work_ns = 1};
        hr_deadline_tree_insert(&m->tree, &m->nodes[i]);
        m->inside[i] = true;
    }
    for (size_t n = N_NODES; n > 0; n--) {
        hr_deadline_node *first = hr_deadline_tree_first(&m->tree), *next = hr_deadline_tree_next(first);
        assert_ptr_equal(first, first_of(m));
        assert_int_equal(hr_deadline_tree_work_until(&m->tree, UINT64_MAX), n);
        hr_deadline_tree_remove(&m->tree, first);
        m->inside[first - m->nodes] = false;
        assert_ptr_equal(next, first_of(m));
    }
    assert_null(hr_deadline_tree_first(&m->tree));
    free(m);
}

static size_t depth_of(const hr_deadline_node *node) {
    size_t depth = 0;
    for (; node != NULL; node = node->parent) depth++;
    return depth;
}

/* Calls come in the order of their deadlines, which would make a plain search tree a list. */
static void the_tree_is_no_list_for_keys_that_come_in_order(void **state) {
    enum { MANY = 100000, DEPTH = 80 };
    (void)state;
    hr_deadline_tree tree = {0};
    hr_deadline_node *nodes = calloc(MANY, sizeof *nodes);
    assert_non_null(nodes);
    for (size_t i = 0; i < MANY; i++) {
        nodes[i] = (hr_deadline_node){.key_ns = i, .sequence = i};
        hr_deadline_tree_insert(&tree, &nodes[i]);
    }
    size_t deepest = 0;
    for (size_t i = 0; i < MANY; i++)
        if (depth_of(&nodes[i]) > deepest) deepest = depth_of(&nodes[i]);
    assert_true(deepest < DEPTH);
    free(nodes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_and_sums_are_those_of_a_list),
        cmocka_unit_test(emptied_from_the_front_the_nodes_come_in_order),
        cmocka_unit_test(the_tree_is_no_list_for_keys_that_come_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
