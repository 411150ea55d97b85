/* The repository's metrics: see repository_metrics.h. */
#include "service/repository_metrics.h"

#include <string.h>

#include "model/repository.h"

#define COUNT_STATE(name, text) +1
enum { N_STATES = 0 HR_VERSION_STATE_MAP(COUNT_STATE) };
#undef COUNT_STATE

typedef struct tally {
    unsigned by_state[N_STATES];
    unsigned n_unreadable;
    char last_unreadable[HR_ERROR_MESSAGE_SIZE]; /* the model's name: each counts once, whatever its versions
                                                  */
} tally;

static void count(const hr_model_status *model, const hr_version_status *version, void *arg) {
    tally *t = arg;
    t->by_state[version->state]++;
    if (model->error[0] == '\0' || strcmp(t->last_unreadable, model->name) == 0) return;
    t->n_unreadable++;
    snprintf(t->last_unreadable, sizeof t->last_unreadable, "%s", model->name);
}

void hr_repository_metrics_collect(hr_metrics_text *text, void *repository) {
    tally t = {0};
    char error[HR_ERROR_MESSAGE_SIZE];
    hr_repository_status(repository, count, &t, error);
    hr_metrics_text_family(text, HR_METRIC_GAUGE, "homerank_model_versions",
                           "Versions on disk or in use, by state.");
    for (int state = 0; state < N_STATES; state++) {
        const hr_label label = {"state", hr_version_state_text((hr_version_state)state)};
        hr_metrics_text_sample(text, t.by_state[state], &label, 1);
    }
    hr_metrics_text_gauge(
        text, "homerank_model_errors",
        "Models whose folder or labels cannot be read, and 1 more where the repository cannot.",
        t.n_unreadable + (error[0] != '\0'));
}
