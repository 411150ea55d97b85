/* Where a load is to go on: see load_resume.h. */
#include "features/load_resume.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static hr_status failed(const char *path, const char *what, hr_error *err) {
    return hr_error_set(err, HR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static hr_status check(const char *path, const char *key, const char *expected, const json_t *state,
                       hr_error *err) {
    const char *found = json_string_value(json_object_get(state, key));
    if (found == NULL)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected where a load ended, found another file",
                            path);
    if (strcmp(found, expected) == 0) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected a load with %s %s, found %s", path, key,
                        hr_quote(expected, strlen(expected)).text, hr_quote(found, strlen(found)).text);
}

hr_status hr_load_resume_read(const char *path, const char *in, const char *store, uint64_t *line,
                              hr_error *err) {
    FILE *file = fopen(path, "r");
    if (file == NULL) return errno == ENOENT ? HR_OK : failed(path, "open", err);
    json_t *state = json_loadf(file, 0, NULL);
    const json_t *number = json_object_get(state, "line");
    hr_status status = check(path, "in", in, state, err);
    if (status == HR_OK) status = check(path, "store", store, state, err);
    if (status == HR_OK && (!json_is_integer(number) || json_integer_value(number) < 1))
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "%s: line: expected a number from 1", path);
    if (status == HR_OK) *line = (uint64_t)json_integer_value(number);
    json_decref(state);
    fclose(file);
    return status;
}

static hr_status write_state(const char *path, const char *text, hr_error *err) {
    FILE *file = fopen(path, "w");
    if (file == NULL) return failed(path, "open", err);
    hr_status status = HR_OK;
    if (fputs(text, file) < 0 || fflush(file) != 0 || fsync(fileno(file)) != 0)
        status = failed(path, "write", err);
    if (fclose(file) != 0 && status == HR_OK) status = failed(path, "write", err);
    return status;
}

hr_status hr_load_resume_write(const char *path, const char *in, const char *store, uint64_t line,
                               hr_error *err) {
    json_t *state = json_pack("{s:s, s:s, s:I}", "in", in, "store", store, "line", (json_int_t)line);
    char *text = state != NULL ? json_dumps(state, JSON_COMPACT) : NULL, *new_path = NULL;
    hr_status status = HR_OK;
    if (text == NULL || asprintf(&new_path, "%s.new", path) < 0) {
        new_path = NULL;
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", path);
    }
    if (status == HR_OK) status = write_state(new_path, text, err);
    if (status == HR_OK && rename(new_path, path) != 0) status = failed(path, "replace", err);
    free(new_path);
    free(text);
    json_decref(state);
    return status;
}

hr_status hr_load_resume_remove(const char *path, hr_error *err) {
    return unlink(path) == 0 || errno == ENOENT ? HR_OK : failed(path, "remove", err);
}
