/* Loading experiments: see experiments.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "service/experiments/experiments_internal.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { PROGRAM_NBYTES = 1 << 30 };

/* ---- The payload ---- */

static hr_status parse_json(const char *text, size_t nbytes, json_t **payload, hr_error *err) {
    json_error_t why;
    *payload = json_loadb(text, nbytes, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &why);
    if (*payload == NULL && json_error_code(&why) == json_error_out_of_memory)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for experiments");
    if (*payload == NULL) {
        char *quotation =
            strstr(why.text, " near "); /* of the text, raw and perhaps cut inside a character */
        if (quotation != NULL) *quotation = '\0';
        return hr_error_set(err, HR_INVALID_ARGUMENT, "line %d, column %d: expected JSON: %s", why.line,
                            why.column, hr_quote(why.text, strlen(why.text)).text);
    }
    if (json_is_object(*payload)) return HR_OK;
    json_decref(*payload);
    *payload = NULL;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a GrowthBook SDK payload, found no object");
}

static hr_status check_payload(const json_t *payload, hr_error *err) {
    static const char *const encrypted[] = {"encryptedFeatures", "encryptedExperiments",
                                            "encryptedSavedGroups", "encryptedContextualBandits"};
    for (size_t i = 0; i < sizeof encrypted / sizeof encrypted[0]; i++)
        if (json_string_length(json_object_get(payload, encrypted[i])) > 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "%s: expected a payload in clear text, found an encrypted one", encrypted[i]);
    if (!json_is_object(json_object_get(payload, "features")))
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "features: expected an object of features, as the GrowthBook SDK's payload has "
                            "it, found none");
    static const char *const objects[] = {"savedGroups", "contextualBandits"};
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++) {
        const json_t *value = json_object_get(payload, objects[i]);
        if (value != NULL && !json_is_null(value) && !json_is_object(value))
            return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected an object", objects[i]);
    }
    return HR_OK;
}

/* ---- Warnings ---- */

static void log_warning(void *arg, const char *what) {
    (void)arg;
    hr_log(HR_LOG_WARN, "experiments", HR_LOG_STR("problem", what));
}

typedef struct warner {
    const hr_experiments_options *options;
    size_t n;
} warner;

/* The first of them; a file of another kind would have no end of them. */
static void warn(void *arg, const char *what) {
    enum { MOST = 100 };
    warner *w = arg;
    w->n++;
    if (w->n > MOST + 1) return;
    void (*tell)(void *, const char *) = w->options->warn == NULL ? log_warning : w->options->warn;
    tell(w->options->warn_arg, w->n <= MOST ? what : "and more that is not understood");
}

static void warn_of_unknown_keys(const json_t *payload, warner *w) {
    static const char *const keys[] = {"features",
                                       "experiments",
                                       "savedGroups",
                                       "dateUpdated",
                                       "status",
                                       "contextualBandits",
                                       "savedGroupReferencesEnabled"};
    const size_t n_keys = sizeof keys / sizeof keys[0];
    const char *key;
    json_t *value;
    /* The iteration macros want a non-const object; nothing is changed. */
    json_object_foreach((json_t *)payload, key, value) {
        char what[128];
        size_t i = 0;
        while (i < n_keys && strcmp(keys[i], key) != 0) i++;
        if (i < n_keys) continue;
        snprintf(what, sizeof what, "unknown key %s is ignored", hr_quote(key, strlen(key)).text);
        warn(w, what);
    }
}

/* Features named as if they were the ranking's, which nobody would ask; and a file that has none of them. */
static void warn_of_strays(const json_t *features, const char *const *names, warner *w) {
    const char *all = names[HR_RANKING_ALL], *key;
    const size_t n_all = strlen(all);
    json_t *value;
    char what[HR_ERROR_MESSAGE_SIZE];
    bool found = false;
    json_object_foreach((json_t *)features, key, value) {
        int f = 0;
        while (f < HR_RANKING_N_FEATURES && strcmp(names[f], key) != 0) f++;
        found |= f < HR_RANKING_N_FEATURES;
        if (f < HR_RANKING_N_FEATURES || strncmp(key, all, n_all) != 0 || key[n_all] != '.') continue;
        snprintf(what, sizeof what, "feature %s: expected .model, .fusion, .tasks or .shadow behind %.100s",
                 hr_quote(key, strlen(key)).text, all);
        warn(w, what);
    }
    snprintf(what, sizeof what, "feature %s: not in the file, nor one of its keys: nothing is decided",
             hr_quote(all, n_all).text);
    if (!found) warn(w, what);
}

/* ---- Compiling ---- */

enum { MAX_NAME_NBYTES = 100, SUFFIX_NBYTES = 16 };

static hr_status compile_features(const json_t *payload, const hr_experiments_options *options,
                                  const char *const *names, hr_experiments *experiments, hr_error *err) {
    warner w = {.options = options};
    hr_flag_program_source source = {.payload = payload,
                                     .features = names,
                                     .n_features = HR_RANKING_N_FEATURES,
                                     .strict = true,
                                     .warn = warn,
                                     .warn_arg = &w,
                                     .memory_nbytes = PROGRAM_NBYTES};
    warn_of_unknown_keys(payload, &w);
    warn_of_strays(json_object_get(payload, "features"), names, &w);
    hr_status status = hr_flag_program_create(&source, &experiments->program, err);
    if (status != HR_OK) return status;
    return hr_ranking_values_attach(experiments->program, options, &experiments->values, err);
}

static hr_status compile(const json_t *payload, const hr_experiments_options *options,
                         hr_experiments *experiments, hr_error *err) {
    char texts[HR_RANKING_N_FEATURES][MAX_NAME_NBYTES + SUFFIX_NBYTES];
    const char *names[HR_RANKING_N_FEATURES];
    if (strlen(options->feature) > MAX_NAME_NBYTES)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "feature: expected a name of at most %d bytes, found %s", MAX_NAME_NBYTES,
                            hr_quote(options->feature, strlen(options->feature)).text);
    for (int f = 0; f < HR_RANKING_N_FEATURES; f++) {
        snprintf(texts[f], sizeof texts[f], "%s%s", options->feature,
                 hr_ranking_suffix((hr_ranking_feature)f));
        names[f] = texts[f];
    }
    hr_status status = check_payload(payload, err);
    return status == HR_OK ? compile_features(payload, options, names, experiments, err) : status;
}

static void destroy(hr_experiments *experiments) {
    hr_ranking_values_clear(&experiments->values);
    hr_flag_program_destroy(experiments->program);
    free(experiments);
}

hr_status hr_experiments_parse(const char *text, size_t nbytes, const hr_experiments_options *options,
                               hr_experiments **experiments, hr_error *err) {
    *experiments = NULL;
    json_t *payload;
    hr_status status = parse_json(text, nbytes, &payload, err);
    if (status != HR_OK) return status;
    hr_experiments *made = calloc(1, sizeof *made);
    if (made == NULL) {
        json_decref(payload);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for experiments");
    }
    atomic_init(&made->n_references, 1);
    snprintf(made->version, sizeof made->version, "%016llx", (unsigned long long)XXH64(text, nbytes, 0));
    status = compile(payload, options, made, err);
    json_decref(payload);
    if (status == HR_OK)
        *experiments = made;
    else
        destroy(made);
    return status;
}

/* ---- The file ---- */

/* All bytes of an open file, owned by the caller. */
static hr_status read_all(int fd, char **text, size_t *nbytes, hr_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) return hr_error_set(err, HR_IO, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode)) return hr_error_set(err, HR_IO, "expected a regular file");
    if (st.st_size > HR_EXPERIMENTS_MAX_NBYTES)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected at most %d bytes, found %lld",
                            HR_EXPERIMENTS_MAX_NBYTES, (long long)st.st_size);
    size_t size = (size_t)st.st_size;
    *text = malloc(size + 1);
    if (*text == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for its %zu bytes", size);
    while (*nbytes < size) {
        ssize_t n = read(fd, *text + *nbytes, size - *nbytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return hr_error_set(err, HR_IO, "%s", strerror(errno));
        if (n == 0) break; /* it was cut meanwhile */
        *nbytes += (size_t)n;
    }
    return HR_OK;
}

static hr_status read_file(const char *path, char **text, size_t *nbytes, hr_error *err) {
    *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us */
    if (fd < 0) return hr_error_set(err, errno == ENOENT ? HR_NOT_FOUND : HR_IO, "%s", strerror(errno));
    hr_status status = read_all(fd, text, nbytes, err);
    close(fd);
    return status;
}

hr_status hr_experiments_load(const char *path, const hr_experiments_options *options,
                              hr_experiments **experiments, hr_error *err) {
    char *text;
    size_t nbytes = 0;
    *experiments = NULL;
    hr_status status = read_file(path, &text, &nbytes, err);
    if (status == HR_OK) status = hr_experiments_parse(text, nbytes, options, experiments, err);
    free(text);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "experiments %s", path);
}

hr_experiments *hr_experiments_ref(hr_experiments *experiments) {
    if (experiments != NULL) atomic_fetch_add_explicit(&experiments->n_references, 1, memory_order_relaxed);
    return experiments;
}

void hr_experiments_unref(hr_experiments *experiments) {
    if (experiments == NULL) return;
    if (atomic_fetch_sub_explicit(&experiments->n_references, 1, memory_order_acq_rel) == 1)
        destroy(experiments);
}

const char *hr_experiments_version(const hr_experiments *experiments) {
    return experiments->version;
}
