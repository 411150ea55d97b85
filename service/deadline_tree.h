/* Calls in the order in which they must be done, and the work that goes before any of them.
 *
 * A treap: a search tree by (key, sequence) that is at the same time a heap by random numbers, hence of
 * logarithmic depth whatever the keys. Every node knows the work of its subtree, so that "how much goes
 * before this deadline" is one walk down. Nodes are the caller's; nothing is allocated.
 *
 * Thread rule: one thread at a time.
 */
#ifndef HOMERANK_SERVICE_DEADLINE_TREE_H
#define HOMERANK_SERVICE_DEADLINE_TREE_H

#include <stdint.h>

typedef struct hr_deadline_node hr_deadline_node;
struct hr_deadline_node {
    uint64_t key_ns;   /* the caller's; unchanged while in a tree */
    uint64_t sequence; /* likewise, unique in a tree: the smaller goes first among equal keys */
    uint64_t work_ns;  /* the caller's before the insertion, then by hr_deadline_tree_set_work */
    /* The tree's own. */
    hr_deadline_node *parent, *child[2];
    uint64_t rank;   /* no child's is smaller */
    uint64_t sum_ns; /* work of the subtree */
};

/* All zero but for the seed: empty. */
typedef struct hr_deadline_tree {
    hr_deadline_node *root;
    uint64_t seed; /* of the ranks; any number */
} hr_deadline_tree;

void hr_deadline_tree_insert(hr_deadline_tree *tree, hr_deadline_node *node);
void hr_deadline_tree_remove(hr_deadline_tree *tree, hr_deadline_node *node);
void hr_deadline_tree_set_work(hr_deadline_node *node, uint64_t work_ns);

/* The node that goes first; NULL: the tree is empty. */
hr_deadline_node *hr_deadline_tree_first(const hr_deadline_tree *tree);

/* The node that goes next after this one; NULL: it is the last. */
hr_deadline_node *hr_deadline_tree_next(const hr_deadline_node *node);

/* The work of all nodes whose key is at most key_ns; UINT64_MAX: of all. */
uint64_t hr_deadline_tree_work_until(const hr_deadline_tree *tree, uint64_t key_ns);

#endif
