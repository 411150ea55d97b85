/* Experiments for people: what a file does to traffic, what it would do to made-up users, and why one user
 * gets what. One thread. */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_EXPERIMENTS_REPORT_H
#define HOMERANK_SERVICE_EXPERIMENTS_EXPERIMENTS_REPORT_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "service/experiments/experiments.h"

/* The traffic table: every rule of every ranking feature, its variations, their shares of whom the rule asks,
 * and whom it asks. Errors: OUT_OF_MEMORY, RESOURCE_EXHAUSTED. */
hr_status hr_experiments_print_traffic(const hr_experiments *experiments, FILE *out, hr_error *err);

/* Decides for the users "user-0" to "user-<n_users - 1>", all with these attributes ("": none), and prints
 * who is in what: counts beside the shares that the file says, with the p-value of their difference. Errors:
 * INVALID_ARGUMENT (attributes), as above. */
hr_status hr_experiments_simulate(const hr_experiments *experiments, uint64_t n_users, const char *attributes,
                                  FILE *out, hr_error *err);

/* Rule by rule, why the user gets what. Errors: as above. */
hr_status hr_experiments_explain(const hr_experiments *experiments, const char *user_id,
                                 const char *attributes, FILE *out, hr_error *err);

#endif
