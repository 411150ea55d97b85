/* The tiny model in double: see tiny_evaluation.h. */
#include "tests/model/tiny_evaluation.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const float *values_of(test_tensors *tensors, const char *prefix, const char *suffix) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return test_tensors_find(tensors, name)->values;
}

static double sigma(double z) {
    return 1.0 / (1.0 + exp(-z));
}

/* y = W x + b for matrix k of a stack of (out, in) matrices; b may be NULL. */
static void affine(const float *w, const float *b, size_t k, const double *x, size_t in, size_t out,
                   double *y) {
    for (size_t o = 0; o < out; o++) {
        y[o] = b == NULL ? 0.0 : b[k * out + o];
        for (size_t i = 0; i < in; i++) y[o] += w[(k * out + o) * in + i] * x[i];
    }
}

static void softmax(double *z, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += z[i] = exp(z[i]);
    for (size_t i = 0; i < n; i++) z[i] /= sum;
}

/* Linear -> Norm -> Swish of layer `prefix` ("meta.shared.expert.0.") of expert k. */
static void expert_layer(test_tensors *t, const char *prefix, const char *norm, size_t k, const double *x,
                         size_t in, size_t out, double *h) {
    affine(values_of(t, prefix, "weight"), values_of(t, prefix, "bias"), k, x, in, out, h);
    double mean = 0.0, variance = 0.0;
    for (size_t o = 0; o < out; o++) mean += h[o] / (double)out;
    for (size_t o = 0; o < out; o++) variance += (h[o] - mean) * (h[o] - mean) / (double)out;
    for (size_t o = 0; o < out; o++) {
        if (strcmp(norm, "none") != 0) {
            if (strcmp(norm, "batch") == 0) {
                mean = values_of(t, prefix, "norm.running_mean")[k * out + o];
                variance = values_of(t, prefix, "norm.running_var")[k * out + o];
            }
            h[o] = (h[o] - mean) / sqrt(variance + 1e-5) * values_of(t, prefix, "norm.weight")[k * out + o] +
                   values_of(t, prefix, "norm.bias")[k * out + o];
        }
    }
    for (size_t o = 0; o < out; o++) h[o] *= sigma(h[o]);
}

/* meta.shared's output (3) from v (3). */
static void meta_shared(test_tensors *t, const char *norm, const double v[3], double y[3]) {
    double branch[2], gated[3] = {0.0}, e[3][3], hidden[4], weights[3], self[2];
    affine(values_of(t, "meta.shared.", "feature_gate.mix.weight"),
           values_of(t, "meta.shared.", "feature_gate.mix.bias"), 0, v, 3, 2, branch);
    softmax(branch, 2);
    for (size_t l = 0; l < 2; l++) {
        double low[2], high[3];
        affine(values_of(t, "meta.shared.", "feature_gate.down"), NULL, l, v, 3, 2, low);
        affine(values_of(t, "meta.shared.", "feature_gate.up"), NULL, l, low, 2, 3, high);
        for (size_t i = 0; i < 3; i++) gated[i] += branch[l] * 2.0 * sigma(high[i]) * v[i];
    }
    for (size_t k = 0; k < 2; k++) {
        expert_layer(t, "meta.shared.expert.0.", norm, k, gated, 3, 4, hidden);
        expert_layer(t, "meta.shared.expert.1.", norm, k, hidden, 4, 3, e[k]);
    }
    expert_layer(t, "meta.extra.expert.0.", norm, 0, v, 3, 3, e[2]);
    affine(values_of(t, "meta.shared.", "gate.weight"), values_of(t, "meta.shared.", "gate.bias"), 0, v, 3, 3,
           weights);
    affine(values_of(t, "meta.shared.", "self_gate.weight"), values_of(t, "meta.shared.", "self_gate.bias"),
           0, v, 3, 2, self);
    softmax(weights, 3);
    softmax(self, 2);
    for (size_t d = 0; d < 3; d++) {
        y[d] = (weights[0] + self[0]) * e[0][d] + (weights[1] + self[1]) * e[1][d] + weights[2] * e[2][d];
    }
}

void test_tiny_evaluate(test_tensors *tensors, const char *norm, size_t row, double price, double logits[2]) {
    const float *user = test_tensors_find(tensors, "embedding.user.weight")->values;
    double v[3] = {user[row * 2], user[row * 2 + 1], price};
    double x[6], click[2], self, y[2], hidden[2];
    meta_shared(tensors, norm, v, x);
    memcpy(x + 3, v, sizeof v);
    expert_layer(tensors, "task.click.expert.0.", norm, 0, x, 6, 2, click);
    affine(values_of(tensors, "task.click.", "self_gate.weight"),
           values_of(tensors, "task.click.", "self_gate.bias"), 0, v, 3, 1, &self);
    for (size_t d = 0; d < 2; d++) y[d] = click[d] * (1.0 + sigma(self));
    affine(values_of(tensors, "tower.click.0.", "weight"), values_of(tensors, "tower.click.0.", "bias"), 0, y,
           2, 2, hidden);
    for (size_t d = 0; d < 2; d++) hidden[d] = hidden[d] > 0.0 ? hidden[d] : 0.0;
    affine(values_of(tensors, "tower.click.1.", "weight"), values_of(tensors, "tower.click.1.", "bias"), 0,
           hidden, 2, 1, &logits[0]);
    affine(values_of(tensors, "tower.time.0.", "weight"), values_of(tensors, "tower.time.0.", "bias"), 0,
           click, 2, 1, &logits[1]);
}
