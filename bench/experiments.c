/* What deciding a request's experiments costs: microseconds a request at 1, 10 and 50 experiments, its
 * attributes read and not.
 *
 *   users         every experiment takes 4 % of the users of some countries: what a team's file looks like
 *   outside       no experiment takes anybody by its bucket, so that every rule is asked
 *   outside, v1   the same with hash version 1
 *   not targeted  every experiment has the user in a variation, and its condition leaves the user out: the
 *                 worst case
 *
 * One thread's CPU time; the median of 15 rounds of 20,000 requests by users in turn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/experiments/experiments.h"

enum { N_ROUNDS = 15, N_REQUESTS = 20000, N_USERS = 1000, TEXT_NBYTES = 1 << 20 };

typedef struct workload {
    const char *name, *rule; /* of one experiment, its number in place of the %d's */
} workload;

#define EXPERIMENT(rest)                                                                                     \
    "{\"key\": \"exp-%d\", \"seed\": \"exp-%d\", " rest ", \"variations\": [%s, %s], \"weights\": [0.5, "    \
    "0.5]}"
#define CONDITION(age)                                                                                       \
    "\"condition\": {\"country\": {\"$in\": [\"de\", \"fr\", \"it\"]}, \"age\": {\"$gte\": " age "}}"

static const workload workloads[] = {
    {"users", EXPERIMENT("\"hashVersion\": 2, \"coverage\": 0.04, " CONDITION("18"))},
    {"outside", EXPERIMENT("\"hashVersion\": 2, \"coverage\": 0, " CONDITION("18"))},
    {"outside, v1", EXPERIMENT("\"coverage\": 0, " CONDITION("18"))},
    {"not targeted", EXPERIMENT("\"hashVersion\": 2, " CONDITION("65"))},
};

static const char attributes_text[] =
    "{\"country\": \"de\", \"age\": 31, \"plan\": \"pro\", \"device\": \"phone\", \"app\": \"7.12.3\"}";

/* The experiments in turn on the features that a ranking value has. */
static void write_file(const workload *w, int n_experiments, char *text) {
    static const struct {
        const char *feature, *values[2];
    } layers[] = {{"ranking.model", {"\"home@1\"", "\"home@2\""}},
                  {"ranking.fusion",
                   {"{\"kind\": \"weighted_sum\", \"weights\": {\"click\": 1}}",
                    "{\"kind\": \"weighted_sum\", \"weights\": {\"click\": 1, \"like\": 2}}"}},
                  {"ranking.tasks", {"[\"click\"]", "[\"like\"]"}}};
    const int n_layers = sizeof layers / sizeof layers[0];
    char *at = text + sprintf(text, "{\"features\": {");
    for (int l = 0; l < n_layers; l++) {
        at += sprintf(at, "%s\"%s\": {\"rules\": [", l > 0 ? ", " : "", layers[l].feature);
        const char *separator = "";
        for (int i = l; i < n_experiments; i += n_layers) {
            at += sprintf(at, "%s", separator);
            at += sprintf(at, w->rule, i, i, layers[l].values[0], layers[l].values[1]);
            separator = ", ";
        }
        at += sprintf(at, "]}");
    }
    sprintf(at, "}}");
}

static void ignore(void *arg, const char *what) {
    (void)arg;
    (void)what;
}

/* Of this thread: what others run beside it does not count. */
static uint64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds a request; *n_assigned: experiments a request is in, on average. */
static double measure(const hr_experiments *experiments, const char *attributes, double *n_assigned) {
    hr_arena *arena = hr_arena_create(1 << 20);
    double rounds[N_ROUNDS];
    size_t n = 0;
    hr_error err;
    for (int round = 0; round < N_ROUNDS; round++) {
        uint64_t begun_ns = cpu_ns();
        for (int i = 0; i < N_REQUESTS; i++) {
            char user[32];
            hr_experiments_subject subject = {.user_id = user, .draw = (uint64_t)i};
            hr_decision decision;
            hr_arena_reset(arena);
            memcpy(user, "user-0000", 10);
            for (int digit = 8, id = i % N_USERS; digit > 4; digit--, id /= 10)
                user[digit] = (char)('0' + id % 10);
            if (hr_experiments_read_attributes(attributes, arena, &subject.attributes, &err) != HR_OK ||
                hr_experiments_decide(experiments, &subject, arena, &decision, &err) != HR_OK) {
                fprintf(stderr, "%s\n", err.message);
                exit(1);
            }
            n += decision.n_assigned;
        }
        rounds[round] = (double)(cpu_ns() - begun_ns) / 1000 / N_REQUESTS;
    }
    hr_arena_destroy(arena);
    qsort(rounds, N_ROUNDS, sizeof *rounds, compare);
    *n_assigned = (double)n / N_ROUNDS / N_REQUESTS;
    return rounds[N_ROUNDS / 2];
}

int main(void) {
    static const int counts[] = {0, 1, 10, 50};
    static const hr_experiments_options options = {.feature = "ranking", .warn = ignore};
    char *text = malloc(TEXT_NBYTES);
    if (text == NULL) return 1;
    printf("| workload | experiments | in | µs a request |\n|---|---|---|---|\n");
    for (size_t w = 0; w < sizeof workloads / sizeof workloads[0]; w++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            hr_experiments *experiments;
            hr_error err;
            double n_assigned;
            write_file(&workloads[w], counts[c], text);
            if (hr_experiments_parse(text, strlen(text), &options, &experiments, &err) != HR_OK) {
                fprintf(stderr, "%s\n", err.message);
                return 1;
            }
            double us = measure(experiments, attributes_text, &n_assigned);
            printf("| %s | %d | %.2f | %.3f |\n", workloads[w].name, counts[c], n_assigned, us);
            hr_experiments_unref(experiments);
        }
    }
    free(text);
    return 0;
}
