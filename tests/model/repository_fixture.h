/* A repository over a scratch folder of tiny models, for the tests of its changes. What fails to start, or
 * does not come about within WAIT_S seconds, fails the test. */
#ifndef HOMERANK_TESTS_MODEL_REPOSITORY_FIXTURE_H
#define HOMERANK_TESTS_MODEL_REPOSITORY_FIXTURE_H

#include <stdbool.h>

#include "model/repository.h"

typedef struct repository_fixture {
    char root[256];
    hr_repository *repository; /* NULL until repository_fixture_open */
} repository_fixture;

/* cmocka's setup (an empty root) and teardown; *state is the fixture. */
int repository_fixture_setup(void **state);
int repository_fixture_teardown(void **state);
#define REPOSITORY_TEST(test)                                                                                \
    cmocka_unit_test_setup_teardown(test, repository_fixture_setup, repository_fixture_teardown)

/* The options of most tests: the reference backend, no poll: the folders are looked at when a test says so.
 */
extern const hr_repository_options repository_fixture_options;
void repository_fixture_open(repository_fixture *f, const hr_repository_options *options);
void repository_fixture_reopen(repository_fixture *f, const hr_repository_options *options);

/* ---- Files ---- */

/* root/name/version with the tiny model, whose logit of `time` tells the version (tiny_expected); it comes
 * into being at once, as by a rename. */
void add_version(const repository_fixture *f, const char *name, uint64_t version);
/* The same without one of its tensors. */
void add_broken_version(const repository_fixture *f, const char *name, uint64_t version);
void remove_version(const repository_fixture *f, const char *name, uint64_t version);
/* root/path, replaced in one step. */
void write_text(const repository_fixture *f, const char *path, const char *text);
/* The text of root/path; the caller's. */
char *read_text(const repository_fixture *f, const char *path);

/* ---- Questions ---- */

void expect_acquired(const repository_fixture *f, const char *spec, const char *label);
void expect_refused(const repository_fixture *f, const char *spec, hr_status status, const char *message);

/* A version's state; AVAILABLE and "" where it is not known at all. */
typedef struct version_seen {
    bool known;
    hr_version_state state;
    char reason[HR_ERROR_MESSAGE_SIZE];
    char model_error[HR_ERROR_MESSAGE_SIZE];
} version_seen;
version_seen see_version(const repository_fixture *f, const char *name, uint64_t version);
void wait_for_state(const repository_fixture *f, const char *name, uint64_t version, hr_version_state state);

/* ---- Changes ---- */

/* Submits the call and waits for its end: its status; err and resolved may be NULL. */
hr_status change(const repository_fixture *f, hr_repository_action action, const char *name, uint64_t version,
                 const char *label, uint64_t *resolved, hr_error *err);
void expect_change(const repository_fixture *f, hr_repository_action action, const char *name,
                   uint64_t version, const char *label, hr_status status, const char *message);

/* Has the folders looked at, twice: what nobody writes any more is settled then, and its loading begun. */
void look(const repository_fixture *f);
void look_once(const repository_fixture *f);

/* ---- Models ---- */

/* The logits that add_version's model gives one row of zeros: of `click`, of `time`. */
void tiny_expected(uint64_t version, float logits[2]);
void tiny_logits(const hr_model *model, uint32_t worker, float logits[2]);

#endif
