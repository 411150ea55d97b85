/* The catalog's parts, and what a look at the folders changes: see catalog.h. */
#include "model/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/version.h"

/* ---- Creation ---- */

static bool is_name_version(const char *text) {
    const char *at = strchr(text, '@');
    uint64_t version;
    return at != NULL && at != text && hr_version_parse(at + 1, &version);
}

static hr_status choose(hr_catalog *catalog, const char *const *versions, size_t n_versions, hr_error *err) {
    catalog->chosen = calloc(n_versions + 1, sizeof *catalog->chosen);
    if (catalog->chosen == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    for (size_t i = 0; i < n_versions; i++) {
        if (!is_name_version(versions[i]))
            return hr_error_set(err, HR_INVALID_ARGUMENT, "versions: expected NAME@VERSION, found %s",
                                hr_quote(versions[i], strlen(versions[i])).text);
        catalog->chosen[i] = strdup(versions[i]);
        if (catalog->chosen[i] == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
        catalog->n_chosen++;
    }
    return HR_OK;
}

hr_status hr_catalog_create(hr_version_policy policy, const char *const *versions, size_t n_versions,
                            hr_catalog **catalog, hr_error *err) {
    *catalog = NULL;
    if ((policy == HR_POLICY_SPECIFIC) != (n_versions > 0))
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "versions: expected at least one with the policy specific and none with another, "
                            "found %zu",
                            n_versions);
    hr_catalog *created = calloc(1, sizeof *created);
    if (created == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    created->policy = policy;
    hr_status status = choose(created, versions, n_versions, err);
    if (status != HR_OK) {
        hr_catalog_destroy(created);
        return status;
    }
    *catalog = created;
    return HR_OK;
}

static void group_destroy(hr_version_group *group) {
    for (size_t v = 0; v < group->n_versions; v++) {
        hr_model_unref(group->versions[v]->loaded.model);
        free(group->versions[v]);
    }
    free(group->versions);
    free(group->labels);
    free(group->name);
    free(group);
}

void hr_catalog_destroy(hr_catalog *catalog) {
    if (catalog == NULL) return;
    for (size_t g = 0; g < catalog->n_groups; g++) group_destroy(catalog->groups[g]);
    for (size_t i = 0; i < catalog->n_chosen; i++) free(catalog->chosen[i]);
    free(catalog->chosen);
    free(catalog->groups);
    free(catalog);
}

/* ---- Parts ---- */

hr_version_group *hr_catalog_find(const hr_catalog *catalog, const char *name) {
    for (size_t g = 0; g < catalog->n_groups; g++)
        if (strcmp(catalog->groups[g]->name, name) == 0) return catalog->groups[g];
    return NULL;
}

hr_version *hr_group_find(const hr_version_group *group, uint64_t version) {
    for (size_t v = 0; v < group->n_versions; v++)
        if (group->versions[v]->version == version) return group->versions[v];
    return NULL;
}

/* Puts element at position `at` of a list of n pointers. */
static bool insert(void ***list, size_t n, size_t at, void *element) {
    void **grown = realloc(*list, (n + 1) * sizeof *grown);
    if (grown == NULL) return false;
    memmove(grown + at + 1, grown + at, (n - at) * sizeof *grown);
    grown[at] = element;
    *list = grown;
    return true;
}

hr_version_group *hr_catalog_add(hr_catalog *catalog, const char *name) {
    size_t at = 0;
    while (at < catalog->n_groups && strcmp(catalog->groups[at]->name, name) < 0) at++;
    if (at < catalog->n_groups && strcmp(catalog->groups[at]->name, name) == 0) return catalog->groups[at];
    hr_version_group *group = calloc(1, sizeof *group);
    if (group == NULL) return NULL;
    group->name = strdup(name);
    if (group->name == NULL || !insert((void ***)&catalog->groups, catalog->n_groups, at, group)) {
        group_destroy(group);
        return NULL;
    }
    catalog->n_groups++;
    return group;
}

hr_version *hr_group_add(hr_version_group *group, uint64_t version) {
    size_t at = 0;
    while (at < group->n_versions && group->versions[at]->version > version) at++;
    if (at < group->n_versions && group->versions[at]->version == version) return group->versions[at];
    hr_version *added = calloc(1, sizeof *added);
    if (added == NULL) return NULL;
    added->version = version;
    if (!insert((void ***)&group->versions, group->n_versions, at, added)) {
        free(added);
        return NULL;
    }
    group->n_versions++;
    return added;
}

/* ---- A look at the folders ---- */

/* Keeps the error of something that is looked at again and again, and logs it when it changes. */
static void note_error(const hr_version_group *group, hr_error *kept, const hr_error *found) {
    if (found->code != HR_OK && strcmp(kept->message, found->message) != 0)
        hr_log(HR_LOG_ERROR, "model folder cannot be read", HR_LOG_STR("model", group->name),
               HR_LOG_STR("reason", found->message));
    if (found->code != HR_OK)
        *kept = *found;
    else
        *kept = (hr_error){.code = HR_OK};
}

static hr_status merge_versions(hr_version_group *group, const hr_model_folder *folder, hr_error *err) {
    for (size_t v = 0; v < group->n_versions; v++) group->versions[v]->on_disk = false;
    for (size_t f = 0; f < folder->n_versions; f++) {
        const hr_version_folder *found = &folder->versions[f];
        hr_version *version = hr_group_add(group, found->version);
        if (version == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
        version->on_disk = true;
        version->settled = version->looked_at && hr_version_stamps_equal(&version->seen, &found->stamp);
        version->looked_at = true;
        if (!version->settled) version->held = false;
        version->seen = found->stamp;
    }
    return HR_OK;
}

static bool is_of_use(const hr_version *version) {
    return version->on_disk || version->loaded.model != NULL || version->loading || version->n_retired > 0 ||
           version->calls != NULL;
}

static void forget_useless_versions(hr_version_group *group) {
    size_t n = 0;
    for (size_t v = 0; v < group->n_versions; v++) {
        if (is_of_use(group->versions[v]))
            group->versions[n++] = group->versions[v];
        else
            free(group->versions[v]);
    }
    group->n_versions = n;
}

static const hr_model_folder *find_folder(const hr_folders *folders, const char *name) {
    for (size_t m = 0; m < folders->n_models; m++)
        if (strcmp(folders->models[m].name, name) == 0) return &folders->models[m];
    return NULL;
}

/* What is left of groups whose folder is gone, or empty. */
static void forget_useless(hr_catalog *catalog, const hr_folders *folders) {
    size_t n = 0;
    for (size_t g = 0; g < catalog->n_groups; g++) {
        hr_version_group *group = catalog->groups[g];
        bool is_gone = find_folder(folders, group->name) == NULL;
        for (size_t v = 0; is_gone && v < group->n_versions; v++) group->versions[v]->on_disk = false;
        forget_useless_versions(group);
        if (is_gone && group->n_versions == 0)
            group_destroy(group);
        else
            catalog->groups[n++] = group;
    }
    catalog->n_groups = n;
}

hr_status hr_catalog_merge(hr_catalog *catalog, const hr_folders *folders, hr_error *err) {
    for (size_t m = 0; m < folders->n_models; m++) {
        const hr_model_folder *folder = &folders->models[m];
        hr_version_group *group = hr_catalog_add(catalog, folder->name);
        if (group == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
        note_error(group, &group->folder_error, &folder->error);
        if (folder->error.code != HR_OK) continue;
        hr_status status = merge_versions(group, folder, err);
        if (status != HR_OK) return status;
    }
    forget_useless(catalog, folders);
    return HR_OK;
}

/* ---- Labels ---- */

static hr_version_label *find_label(hr_version_label *labels, size_t n_labels, const char *name) {
    for (size_t l = 0; l < n_labels; l++)
        if (strcmp(labels[l].name, name) == 0) return &labels[l];
    return NULL;
}

void hr_group_set_labels(hr_version_group *group, hr_version_label *labels, size_t n_labels) {
    for (size_t l = 0; l < n_labels; l++) {
        const hr_version_label *before = find_label(group->labels, group->n_labels, labels[l].name);
        labels[l].served = before == NULL ? 0 : before->served;
    }
    free(group->labels);
    group->labels = labels;
    group->n_labels = n_labels;
}

static bool serves(const hr_version_group *group, uint64_t version) {
    const hr_version *found = hr_group_find(group, version);
    return found != NULL && found->loaded.model != NULL;
}

bool hr_catalog_resolve_labels(hr_catalog *catalog) {
    bool changed = false;
    for (size_t g = 0; g < catalog->n_groups; g++) {
        const hr_version_group *group = catalog->groups[g];
        for (size_t l = 0; l < group->n_labels; l++) {
            hr_version_label *label = &group->labels[l];
            uint64_t before = label->served;
            if (serves(group, label->version))
                label->served = label->version;
            else if (!serves(group, label->served))
                label->served = 0;
            changed = changed || label->served != before;
        }
    }
    return changed;
}
