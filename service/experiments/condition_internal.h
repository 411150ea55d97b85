/* A compiled condition, for the files that make and ask it. Private to service/experiments.
 *
 * A condition is a conjunction of terms, each a group of conditions or a test of the value at a path; a test
 * compares its value with a literal, or is a conjunction of operators.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_CONDITION_INTERNAL_H
#define HOMERANK_SERVICE_EXPERIMENTS_CONDITION_INTERNAL_H

#include "service/experiments/condition.h"
#include "service/experiments/js_set.h"

/* X(name, key) */
#define HR_OPERATOR_MAP(X)                                                                                   \
    X(VEQ, "$veq")                                                                                           \
    X(VNE, "$vne")                                                                                           \
    X(VGT, "$vgt")                                                                                           \
    X(VGTE, "$vgte")                                                                                         \
    X(VLT, "$vlt")                                                                                           \
    X(VLTE, "$vlte")                                                                                         \
    X(EQ, "$eq")                                                                                             \
    X(NE, "$ne")                                                                                             \
    X(LT, "$lt")                                                                                             \
    X(LTE, "$lte")                                                                                           \
    X(GT, "$gt")                                                                                             \
    X(GTE, "$gte")                                                                                           \
    X(EXISTS, "$exists")                                                                                     \
    X(IN, "$in")                                                                                             \
    X(INI, "$ini")                                                                                           \
    X(NIN, "$nin")                                                                                           \
    X(NINI, "$nini")                                                                                         \
    X(IN_GROUP, "$inGroup")                                                                                  \
    X(NOT_IN_GROUP, "$notInGroup")                                                                           \
    X(NOT, "$not")                                                                                           \
    X(SIZE, "$size")                                                                                         \
    X(ELEM_MATCH, "$elemMatch")                                                                              \
    X(ALL, "$all")                                                                                           \
    X(ALLI, "$alli")                                                                                         \
    X(REGEX, "$regex")                                                                                       \
    X(REGEXI, "$regexi")                                                                                     \
    X(TYPE, "$type")

typedef enum hr_operator_kind {
#define HR_OPERATOR_ENUM(name, key) HR_OPERATOR_##name,
    HR_OPERATOR_MAP(HR_OPERATOR_ENUM)
#undef HR_OPERATOR_ENUM
        HR_OPERATOR_NEVER /* an operator that is not known, or whose operand makes it false */
} hr_operator_kind;

typedef struct hr_test hr_test;

typedef struct hr_operator {
    hr_operator_kind kind;
    union {
        const hr_js_value *value; /* EQ to GTE, EXISTS */
        hr_js_text text;          /* V*: padded; TYPE */
        const hr_js_set *set;     /* IN to NOT_IN_GROUP */
        const hr_js_regex *regex; /* REGEX, REGEXI */
        const hr_test *test;      /* NOT, SIZE, ELEM_MATCH of operators */
        struct {
            const hr_test *tests; /* (n) ALL, ALLI */
            uint32_t n;
        } all;
    };
    const hr_condition *condition; /* ELEM_MATCH of an object's condition; else NULL */
} hr_operator;

struct hr_test {
    enum {
        HR_TEST_TEXT,      /* its text is the literal */
        HR_TEST_TEXT_ANY,  /* ... in any case; the literal is in lower case */
        HR_TEST_NUMBER,    /* its number is the literal */
        HR_TEST_TRUTH,     /* it is there, and its truth is the literal's */
        HR_TEST_NULL,      /* it is not there */
        HR_TEST_DEEP,      /* it is the same array or object */
        HR_TEST_OPERATORS, /* all of them are true */
    } kind;
    const hr_js_value *literal;
    uint32_t n_operators;
    const hr_operator *operators; /* (n_operators) */
};

typedef struct hr_term {
    enum { HR_TERM_OR, HR_TERM_NOR, HR_TERM_AND, HR_TERM_NOT, HR_TERM_TEST, HR_TERM_NEVER } kind;
    uint32_t n_conditions;
    const hr_condition *const *conditions; /* (n_conditions) of a group */
    /* Of TEST: */
    const hr_path *path;
    int32_t path_index; /* among the attributes' paths; -1: of another value */
    hr_test test;
} hr_term;

struct hr_condition {
    uint32_t n_terms;
    const hr_term *terms; /* (n_terms) */
};

/* paddedVersionString: a version as a text that sorts as versions do. */
hr_js_text hr_padded_version(const hr_js_value *version, hr_js_scratch *scratch);

#endif
