/* What a request must be: see request_check.h. */
#include "service/request_check.h"

#include <string.h>

static hr_status check_id(const char *id, uint32_t max_id_nbytes, hr_error *err) {
    size_t nbytes = strlen(id);
    if (nbytes >= 1 && nbytes <= max_id_nbytes) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected 1 to %u bytes, found %zu",
                        (unsigned)max_id_nbytes, nbytes);
}

/* It stands in the answer and in each of its exposures, where a byte may become six. */
static hr_status check_request_id(const char *id, hr_error *err) {
    size_t nbytes = strlen(id);
    if (nbytes <= HR_MAX_REQUEST_ID_NBYTES) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "request_id: expected at most %d bytes, found %zu",
                        HR_MAX_REQUEST_ID_NBYTES, nbytes);
}

static hr_status check_items(const Homerank__V1__RankRequest *request, uint32_t max_items,
                             uint32_t max_id_nbytes, hr_error *err) {
    const size_t n_items = request->n_item_ids;
    if (n_items == 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "item_ids: expected at least 1 item, found 0");
    if (n_items > max_items)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "item_ids: expected at most %u items, found %zu",
                            (unsigned)max_items, n_items);
    if (request->n_item_features != 0 && request->n_item_features != n_items)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "item_features: expected none or one per item (%zu), found %zu", n_items,
                            request->n_item_features);
    for (size_t i = 0; i < n_items; i++)
        if (check_id(request->item_ids[i], max_id_nbytes, err) != HR_OK)
            return hr_error_prefix(err, "item_ids[%zu]", i);
    return HR_OK;
}

static hr_status read_attributes(const char *text, hr_arena *arena,
                                 const hr_experiments_attributes **attributes, hr_error *err) {
    const size_t nbytes = strlen(text);
    if (nbytes > HR_MAX_ATTRIBUTES_NBYTES)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "attributes: expected at most %d bytes, found %zu",
                            HR_MAX_ATTRIBUTES_NBYTES, nbytes);
    hr_status status = hr_experiments_read_attributes(text, arena, attributes, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "attributes");
}

hr_status hr_request_check(const Homerank__V1__RankRequest *request, const hr_request_limits *limits,
                           hr_arena *arena, const hr_experiments_attributes **attributes, hr_error *err) {
    hr_status status = check_id(request->user_id, limits->max_id_nbytes, err);
    if (status != HR_OK) return hr_error_prefix(err, "user_id");
    status = check_request_id(request->request_id, err);
    if (status == HR_OK) status = check_items(request, limits->max_items, limits->max_id_nbytes, err);
    if (status == HR_OK) status = read_attributes(request->attributes, arena, attributes, err);
    if (status != HR_OK) return status;
    if (request->priority > 1)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "priority: expected 0 (normal) or 1 (batch), found %u",
                            (unsigned)request->priority);
    if (request->n_forced_variations > 0 && !limits->allow_forced_variations)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "forced_variations: this server does not allow them");
    return HR_OK;
}
