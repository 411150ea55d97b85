/* What a repository's policy makes of its catalog: see catalog.h.
 *
 * Nothing is taken out of service by accident: a version whose folder is gone goes on while no other version
 * of its model could take its place, so that a lost mount, or a folder moved away, stops nobody. Deleting the
 * newest version's folder does roll back to the one before, once that has loaded. */
#include "model/catalog.h"

#include <stdio.h>
#include <string.h>

size_t hr_group_n_loaded(const hr_version_group *group) {
    size_t n = 0;
    for (size_t v = 0; v < group->n_versions; v++) n += group->versions[v]->loaded.model != NULL;
    return n;
}

/* A label that is to move away from a version still keeps it until it has moved. */
static bool is_labelled(const hr_version_group *group, const hr_version *version) {
    for (size_t l = 0; l < group->n_labels; l++)
        if (group->labels[l].version == version->version || group->labels[l].served == version->version)
            return true;
    return false;
}

static bool is_chosen(const hr_catalog *catalog, const hr_version_group *group, const hr_version *version) {
    for (size_t i = 0; i < catalog->n_chosen; i++) {
        size_t length = strlen(group->name);
        const char *chosen = catalog->chosen[i];
        char digits[24];
        snprintf(digits, sizeof digits, "@%llu", (unsigned long long)version->version);
        if (strncmp(chosen, group->name, length) == 0 && strcmp(chosen + length, digits) == 0) return true;
    }
    return false;
}

/* ---- Loading ---- */

/* A failure with these very files would come again, or not yet be over. */
static bool is_barred(const hr_version *version, uint64_t now_ns) {
    return version->failure.code != HR_OK && hr_version_stamps_equal(&version->failed, &version->seen) &&
           now_ns < version->retry_ns;
}

static bool may_load(const hr_version *version, bool settled, uint64_t now_ns) {
    return version->on_disk && version->loaded.model == NULL && !version->loading &&
           (version->settled || !settled) && !is_barred(version, now_ns);
}

/* The newest version that may load, unless a newer one serves; NULL: there is none. */
static const hr_version *newer_to_load(const hr_version_group *group, bool settled, uint64_t now_ns) {
    for (size_t v = 0; v < group->n_versions; v++) {
        const hr_version *version = group->versions[v];
        if (!version->on_disk || version->held) continue;
        if (version->loaded.model != NULL) return NULL;
        if (may_load(version, settled, now_ns)) return version;
    }
    return NULL;
}

static bool wants_loaded(const hr_catalog *catalog, const hr_version_group *group, const hr_version *version,
                         bool settled, uint64_t now_ns) {
    if (!may_load(version, settled, now_ns)) return false;
    if (is_labelled(group, version)) return true;
    if (version->held) return false;
    switch (catalog->policy) {
    case HR_POLICY_LATEST: return newer_to_load(group, settled, now_ns) == version;
    case HR_POLICY_ALL: return true;
    case HR_POLICY_SPECIFIC: return is_chosen(catalog, group, version);
    }
    return false;
}

hr_load_choice hr_catalog_next_load(const hr_catalog *catalog, bool settled, uint64_t now_ns) {
    hr_load_choice wanted = {NULL, NULL};
    for (size_t g = 0; g < catalog->n_groups; g++) {
        hr_version_group *group = catalog->groups[g];
        for (size_t v = 0; v < group->n_versions; v++) {
            hr_version *version = group->versions[v];
            const hr_load_choice here = {group, version};
            if (version->calls != NULL && !version->loading) return here;
            if (wanted.version == NULL && wants_loaded(catalog, group, version, settled, now_ns))
                wanted = here;
        }
    }
    return wanted;
}

/* ---- Keeping ---- */

/* The newest version that serves, is to go on, and whose folder is there. */
static const hr_version *newest_served(const hr_version_group *group) {
    for (size_t v = 0; v < group->n_versions; v++) {
        const hr_version *version = group->versions[v];
        if (version->loaded.model != NULL && version->on_disk && !version->held) return version;
    }
    return NULL;
}

bool hr_catalog_keeps(const hr_catalog *catalog, const hr_version_group *group, const hr_version *version) {
    if (version->kept || is_labelled(group, version)) return true;
    if (version->held) return false;
    const hr_version *newest = newest_served(group);
    if (!version->on_disk) return newest == NULL;
    switch (catalog->policy) {
    case HR_POLICY_LATEST: return newest == version;
    case HR_POLICY_ALL: return true;
    case HR_POLICY_SPECIFIC: return is_chosen(catalog, group, version);
    }
    return true;
}
