/* The tiny model evaluated in double straight from its tensors, norms and all unfolded: an evaluation that
 * shares no code with the program (MODEL.md 2). */
#ifndef HOMERANK_TESTS_MODEL_TINY_EVALUATION_H
#define HOMERANK_TESTS_MODEL_TINY_EVALUATION_H

#include "tests/model/model_folder.h"

/* The logits of `click` and `time` for embedding row `row` of user_id and this price. norm as in config.json;
 * activation swish, tower activation relu, norm_eps 1e-5. */
void test_tiny_evaluate(test_tensors *tensors, const char *norm, size_t row, double price, double logits[2]);

#endif
