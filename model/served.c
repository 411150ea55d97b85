/* The table of what is served: see served.h. */
#include "model/served.h"

#include <stdlib.h>
#include <string.h>

#include "model/version.h"

typedef struct served_label {
    char name[HR_LABEL_SIZE];
    hr_model *model; /* one of its row's */
} served_label;

/* One model: its versions and labels. */
typedef struct served_row {
    const char *name;  /* the models' */
    hr_model **models; /* (n_models) newest first; n_models >= 1 */
    size_t n_models;
    served_label *labels; /* (n_labels) those that resolve */
    size_t n_labels;
} served_row;

struct hr_served {
    const char *default_spec;
    served_row *rows; /* (n_rows) by name */
    size_t n_rows;
    hr_model **models; /* all rows' together, (n_models), one reference each */
    size_t n_models;
    served_label *labels; /* all rows' together */
};

/* ---- Creation ---- */

static hr_model *find_version(const served_row *row, uint64_t version) {
    for (size_t m = 0; m < row->n_models; m++)
        if (hr_model_version(row->models[m]) == version) return row->models[m];
    return NULL;
}

/* Adds the group's row, where anything of it serves, behind n_labels labels; returns how many there are then.
 */
static size_t add_row(hr_served *served, const hr_version_group *group, size_t n_labels) {
    served_row row = {.models = served->models + served->n_models, .labels = served->labels + n_labels};
    for (size_t v = 0; v < group->n_versions; v++) {
        hr_model *model = group->versions[v]->loaded.model;
        if (model != NULL) row.models[row.n_models++] = hr_model_ref(model);
    }
    if (row.n_models == 0) return n_labels;
    row.name = hr_model_name(row.models[0]);
    for (size_t l = 0; l < group->n_labels; l++) {
        hr_model *model = find_version(&row, group->labels[l].served);
        if (model == NULL) continue;
        served_label *label = &row.labels[row.n_labels++];
        memcpy(label->name, group->labels[l].name, sizeof label->name);
        label->model = model;
    }
    served->n_models += row.n_models;
    served->rows[served->n_rows++] = row;
    return n_labels + row.n_labels;
}

hr_served *hr_served_create(const hr_catalog *catalog, const char *default_spec) {
    size_t n_models = 0, n_labels = 0;
    for (size_t g = 0; g < catalog->n_groups; g++) {
        n_models += hr_group_n_loaded(catalog->groups[g]);
        n_labels += catalog->groups[g]->n_labels;
    }
    hr_served *served = calloc(1, sizeof *served);
    if (served == NULL) return NULL;
    served->default_spec = default_spec;
    served->rows = calloc(catalog->n_groups + 1, sizeof *served->rows);
    served->models = calloc(n_models + 1, sizeof(hr_model *));
    served->labels = calloc(n_labels + 1, sizeof *served->labels);
    if (served->rows == NULL || served->models == NULL || served->labels == NULL) {
        hr_served_destroy(served);
        return NULL;
    }
    n_labels = 0;
    for (size_t g = 0; g < catalog->n_groups; g++) n_labels = add_row(served, catalog->groups[g], n_labels);
    return served;
}

void hr_served_destroy(hr_served *served) {
    if (served == NULL) return;
    for (size_t m = 0; m < served->n_models; m++) hr_model_unref(served->models[m]);
    free(served->labels);
    free(served->models);
    free(served->rows);
    free(served);
}

/* ---- Resolving ---- */

/* The row whose name is the first nbytes of text; NULL: there is none. */
static const served_row *find_row(const hr_served *served, const char *text, size_t nbytes) {
    for (size_t r = 0; r < served->n_rows; r++) {
        const char *name = served->rows[r].name;
        if (strncmp(name, text, nbytes) == 0 && name[nbytes] == '\0') return &served->rows[r];
    }
    return NULL;
}

static hr_model *find_label(const served_row *row, const char *name) {
    for (size_t l = 0; l < row->n_labels; l++)
        if (strcmp(row->labels[l].name, name) == 0) return row->labels[l].model;
    return NULL;
}

/* name@version or name:label, of which `mark` is the @ or the : */
static hr_status find_marked(const hr_served *served, const char *spec, const char *mark, hr_model **model,
                             hr_error *err) {
    const hr_quoted shown = hr_quote(spec, strlen(spec));
    uint64_t version = 0;
    if (mark == spec || mark[1] == '\0' || (*mark == '@' && !hr_version_parse(mark + 1, &version)))
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "model: expected name, name@version or name:label, found %s", shown.text);
    const served_row *row = find_row(served, spec, (size_t)(mark - spec));
    if (row == NULL) return hr_error_set(err, HR_NOT_FOUND, "model %s is not served", shown.text);
    *model = *mark == '@' ? find_version(row, version) : find_label(row, mark + 1);
    if (*model != NULL) return HR_OK;
    if (*mark == ':') return hr_error_set(err, HR_NOT_FOUND, "model %s: there is no such label", shown.text);
    return hr_error_set(err, HR_NOT_FOUND, "model %s is not served, version %llu is", shown.text,
                        (unsigned long long)hr_model_version(row->models[0]));
}

/* The last @ or : of the text; NULL: it has none. A plain folder's name may have some too. */
static const char *last_mark(const char *text) {
    const char *at = strrchr(text, '@'), *colon = strrchr(text, ':');
    if (at == NULL || colon == NULL) return at == NULL ? colon : at;
    return at > colon ? at : colon;
}

/* spec is not empty. The model is borrowed. */
static hr_status find(const hr_served *served, const char *spec, hr_model **model, hr_error *err) {
    const served_row *row = find_row(served, spec, strlen(spec));
    if (row != NULL) {
        *model = row->models[0];
        return HR_OK;
    }
    const char *mark = last_mark(spec);
    if (mark != NULL) return find_marked(served, spec, mark, model, err);
    return hr_error_set(err, HR_NOT_FOUND, "model %s is not served", hr_quote(spec, strlen(spec)).text);
}

static hr_status find_default(const hr_served *served, hr_model **model, hr_error *err) {
    if (served->default_spec[0] != '\0') {
        hr_error why;
        if (find(served, served->default_spec, model, &why) == HR_OK) return HR_OK;
        return hr_error_set(err, HR_UNAVAILABLE, "the default %s", why.message);
    }
    if (served->n_rows == 0) return hr_error_set(err, HR_UNAVAILABLE, "no model is loaded");
    if (served->n_rows > 1)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "model: expected a name, since %zu models are served and none is the default",
                            served->n_rows);
    *model = served->rows[0].models[0];
    return HR_OK;
}

hr_status hr_served_acquire(const hr_served *served, const char *spec, hr_model **model, hr_error *err) {
    hr_model *found = NULL;
    hr_status status = spec[0] == '\0' ? find_default(served, &found, err) : find(served, spec, &found, err);
    *model = status == HR_OK ? hr_model_ref(found) : NULL;
    return status;
}

void hr_served_visit(const hr_served *served, void (*visit)(const hr_model *model, void *arg), void *arg) {
    for (size_t m = 0; m < served->n_models; m++) visit(served->models[m], arg);
}
