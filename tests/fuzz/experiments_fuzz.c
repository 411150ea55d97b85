/* Two texts, a line end between them: an experiments file, and a request's attributes. Whatever is accepted
 * decides, twice the same, within a bounded arena. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "service/experiments/experiments.h"
#include "tests/fuzz/fuzz.h"

enum { ARENA_CAP = 8 << 20 };

static void require(int holds) {
    if (!holds) abort();
}

static void require_reason(hr_status status, const hr_error *err) {
    require(err->code == status && err->message[0] != '\0');
    require(hr_utf8_valid(err->message, strlen(err->message)) && strchr(err->message, '\n') == NULL);
}

static void require_warning(void *arg, const char *what) {
    (void)arg;
    require(what[0] != '\0' && hr_utf8_valid(what, strlen(what)));
}

static hr_status accept_all(void *arg, const char *model, const hr_fusion_spec *fusion,
                            const char *const *tasks, size_t n_tasks, hr_error *err) {
    (void)arg;
    (void)fusion;
    (void)err;
    require(model == NULL || model[0] != '\0');
    for (size_t i = 0; i < n_tasks; i++) require(tasks[i][0] != '\0');
    return HR_OK;
}

static void require_decision(const hr_decision *decision) {
    for (size_t i = 0; i < decision->n_assigned; i++) {
        const hr_assigned *a = &decision->assigned[i];
        require(a->variation_key[0] != '\0' && a->feature[0] != '\0');
        require(a->bucket == -1 || (a->bucket >= 0 && a->bucket < 1));
    }
}

static void decide(const hr_experiments *experiments, const char *attributes, bool may_force) {
    static const hr_forced_variation forced[] = {{"e", 1}, {"ranking", 0}};
    hr_experiments_subject subject = {
        .user_id = "u1", .forced = forced, .n_forced = 2, .may_force = may_force, .draw = 7};
    hr_arena *arena = hr_arena_create(ARENA_CAP);
    hr_error err = {.code = HR_OK, .message = ""};
    hr_decision first, second;
    hr_status status = hr_experiments_read_attributes(attributes, arena, &subject.attributes, &err);
    if (status == HR_OK) status = hr_experiments_decide(experiments, &subject, arena, &first, &err);
    if (status == HR_OK) status = hr_experiments_decide(experiments, &subject, arena, &second, &err);
    if (status != HR_OK) {
        require_reason(status, &err);
    } else {
        require_decision(&first);
        require(first.model == second.model && first.fusion == second.fusion);
        require(first.n_assigned == second.n_assigned && first.shadow_model == second.shadow_model);
    }
    hr_arena_destroy(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    static const hr_experiments_options options = {
        .feature = "ranking", .check = accept_all, .warn = require_warning};
    const uint8_t *end = nbytes == 0 ? NULL : memchr(data, '\n', nbytes);
    size_t n_file = end == NULL ? nbytes : (size_t)(end - data);
    size_t n_attributes = end == NULL ? 0 : nbytes - n_file - 1;
    char *attributes = calloc(n_attributes + 1, 1);
    if (attributes == NULL) return 0;
    if (n_attributes > 0) memcpy(attributes, end + 1, n_attributes);
    hr_experiments *experiments;
    hr_error err = {.code = HR_OK, .message = ""};
    hr_status status = hr_experiments_parse((const char *)data, n_file, &options, &experiments, &err);
    if (status == HR_OK) {
        decide(experiments, attributes, false);
        decide(experiments, attributes, true);
    } else {
        require_reason(status, &err);
    }
    hr_experiments_unref(experiments);
    free(attributes);
    return 0;
}
