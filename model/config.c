/* Reads config.json: see config.h. */
#include "model/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schema/json_read.h"

enum { MAX_CONFIG_NBYTES = 8 << 20, ARENA_NBYTES = 512 << 20 };

static hr_status check_format(const json_t *root, hr_error *err) {
    static const char *const keys[] = {"format", "tables", "features", "network", "fusion", "description"};
    hr_status status = hr_json_check_keys(root, "config", keys, sizeof keys / sizeof keys[0], err);
    if (status != HR_OK) return status;
    const json_t *format = json_object_get(root, "format");
    if (!json_is_string(format) || strcmp(json_string_value(format), "homerank/1") != 0) {
        return hr_json_expected("config", "format", "\"homerank/1\"", format, err);
    }
    const json_t *description = json_object_get(root, "description");
    if (description != NULL && !json_is_string(description)) {
        return hr_json_expected("config", "description", "a string", description, err);
    }
    return HR_OK;
}

static hr_status read_root(const json_t *root, hr_config *config, hr_error *err) {
    hr_status status = check_format(root, err);
    if (status != HR_OK) return status;
    status = hr_schema_create(json_object_get(root, "tables"), json_object_get(root, "features"),
                              &config->schema, err);
    if (status != HR_OK) return status;
    status = hr_network_read(json_object_get(root, "network"), config->schema, config->arena, &config->plan,
                             &config->norm, err);
    if (status != HR_OK) return status;
    return hr_fusion_create(json_object_get(root, "fusion"), config->plan.tasks, config->plan.n_tasks,
                            &config->fusion, err);
}

hr_status hr_config_parse(const char *text, size_t nbytes, hr_config *config, hr_error *err) {
    *config = (hr_config){.arena = hr_arena_create(ARENA_NBYTES)};
    if (config->arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "config: out of memory");
    json_error_t why;
    json_t *root = json_loadb(text, nbytes, JSON_REJECT_DUPLICATES, &why);
    hr_status status;
    if (root == NULL) {
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "line %d, column %d: expected JSON: %s", why.line,
                              why.column, hr_quote(why.text, strlen(why.text)).text);
    } else {
        status = read_root(root, config, err);
    }
    json_decref(root);
    if (status != HR_OK) hr_config_clear(config);
    return status;
}

/* The whole file in *text (owned by the caller), at most MAX_CONFIG_NBYTES. */
static hr_status read_file(int fd, char **text, size_t *nbytes, hr_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) return hr_error_set(err, HR_IO, "cannot stat: %s", strerror(errno));
    if (!S_ISREG(st.st_mode)) return hr_error_set(err, HR_IO, "expected a regular file");
    if (st.st_size > MAX_CONFIG_NBYTES) {
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected at most %d bytes, found %lld",
                            MAX_CONFIG_NBYTES, (long long)st.st_size);
    }
    size_t size = (size_t)st.st_size, used = 0;
    *text = malloc(size + 1);
    if (*text == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    while (used < size) {
        ssize_t n = read(fd, *text + used, size - used);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return hr_error_set(err, HR_IO, "cannot read: %s", strerror(errno));
        if (n == 0) break; /* cut short meanwhile; the parser will tell */
        used += (size_t)n;
    }
    *nbytes = used;
    return HR_OK;
}

hr_status hr_config_load(const char *path, hr_config *config, hr_error *err) {
    *config = (hr_config){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return hr_error_set(err, HR_IO, "cannot open: %s", strerror(errno));
    char *text = NULL;
    size_t nbytes = 0;
    hr_status status = read_file(fd, &text, &nbytes, err);
    if (status == HR_OK) status = hr_config_parse(text, nbytes, config, err);
    free(text);
    close(fd);
    return status;
}

void hr_config_clear(hr_config *config) {
    hr_fusion_destroy(config->fusion);
    hr_schema_destroy(config->schema);
    hr_arena_destroy(config->arena);
    *config = (hr_config){0};
}
