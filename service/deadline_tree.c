/* A treap with sums: see deadline_tree.h. */
#include "service/deadline_tree.h"

#include <stdbool.h>
#include <stddef.h>

/* splitmix64 */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static bool goes_before(const hr_deadline_node *a, const hr_deadline_node *b) {
    return a->key_ns != b->key_ns ? a->key_ns < b->key_ns : a->sequence < b->sequence;
}

static uint64_t sum_of(const hr_deadline_node *node) {
    return node == NULL ? 0 : node->sum_ns;
}

static void sum_up(hr_deadline_node *node) {
    node->sum_ns = node->work_ns + sum_of(node->child[0]) + sum_of(node->child[1]);
}

/* Where the tree points to the node from above. */
static hr_deadline_node **link_to(hr_deadline_tree *tree, const hr_deadline_node *node) {
    hr_deadline_node *parent = node->parent;
    return parent == NULL ? &tree->root : &parent->child[parent->child[1] == node];
}

/* The node takes its parent's place and becomes its parent; the order stands. */
static void rotate_up(hr_deadline_tree *tree, hr_deadline_node *node) {
    hr_deadline_node *parent = node->parent;
    int side = parent->child[1] == node;
    hr_deadline_node *between = node->child[!side];
    *link_to(tree, parent) = node;
    node->parent = parent->parent;
    node->child[!side] = parent;
    parent->parent = node;
    parent->child[side] = between;
    if (between != NULL) between->parent = parent;
    sum_up(parent);
    sum_up(node);
}

void hr_deadline_tree_insert(hr_deadline_tree *tree, hr_deadline_node *node) {
    hr_deadline_node **at = &tree->root;
    node->parent = node->child[0] = node->child[1] = NULL;
    node->rank = next_random(&tree->seed);
    node->sum_ns = node->work_ns;
    while (*at != NULL) {
        node->parent = *at;
        node->parent->sum_ns += node->work_ns;
        at = &node->parent->child[goes_before(node->parent, node)];
    }
    *at = node;
    while (node->parent != NULL && node->rank < node->parent->rank) rotate_up(tree, node);
}

void hr_deadline_tree_remove(hr_deadline_tree *tree, hr_deadline_node *node) {
    while (node->child[0] != NULL || node->child[1] != NULL) {
        hr_deadline_node *left = node->child[0], *right = node->child[1];
        bool take_left = right == NULL || (left != NULL && left->rank < right->rank);
        rotate_up(tree, take_left ? left : right);
    }
    *link_to(tree, node) = NULL;
    for (hr_deadline_node *above = node->parent; above != NULL; above = above->parent)
        above->sum_ns -= node->work_ns;
    node->parent = NULL;
}

void hr_deadline_tree_set_work(hr_deadline_node *node, uint64_t work_ns) {
    uint64_t change_ns = work_ns - node->work_ns; /* modulo 2^64, as the sums are */
    node->work_ns = work_ns;
    for (; node != NULL; node = node->parent) node->sum_ns += change_ns;
}

static hr_deadline_node *leftmost(hr_deadline_node *node) {
    while (node != NULL && node->child[0] != NULL) node = node->child[0];
    return node;
}

hr_deadline_node *hr_deadline_tree_first(const hr_deadline_tree *tree) {
    return leftmost(tree->root);
}

hr_deadline_node *hr_deadline_tree_next(const hr_deadline_node *node) {
    if (node->child[1] != NULL) return leftmost(node->child[1]);
    while (node->parent != NULL && node->parent->child[1] == node) node = node->parent;
    return node->parent;
}

uint64_t hr_deadline_tree_work_until(const hr_deadline_tree *tree, uint64_t key_ns) {
    uint64_t work_ns = 0;
    for (const hr_deadline_node *node = tree->root; node != NULL;) {
        bool counts = node->key_ns <= key_ns;
        if (counts) work_ns += node->work_ns + sum_of(node->child[0]);
        node = node->child[counts];
    }
    return work_ns;
}
