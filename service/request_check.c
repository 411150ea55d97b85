/* What a request must be: see request_check.h. */
#include "service/request_check.h"

#include <string.h>

#include "proto/json.h"

static hr_status check_id(const char *id, uint32_t max_id_nbytes, hr_error *err) {
    size_t nbytes = strlen(id);
    if (nbytes >= 1 && nbytes <= max_id_nbytes) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected 1 to %u bytes, found %zu",
                        (unsigned)max_id_nbytes, nbytes);
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

/* Parsed JSON takes up to some eighty times its text, outside the call's arena, and this may be an RPC
 * poller. */
static hr_status check_attributes(const char *attributes, hr_error *err) {
    const size_t nbytes = strlen(attributes);
    if (nbytes == 0) return HR_OK;
    if (nbytes > HR_MAX_ATTRIBUTES_NBYTES)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "attributes: expected at most %d bytes, found %zu",
                            HR_MAX_ATTRIBUTES_NBYTES, nbytes);
    json_t *value = NULL;
    hr_status status = hr_json_parse(attributes, nbytes, &value, err);
    if (status != HR_OK) return hr_error_prefix(err, "attributes");
    bool is_object = json_is_object(value);
    json_decref(value);
    return is_object ? HR_OK : hr_error_set(err, HR_INVALID_ARGUMENT, "attributes: expected a JSON object");
}

hr_status hr_request_check(const Homerank__V1__RankRequest *request, uint32_t max_items,
                           uint32_t max_id_nbytes, hr_error *err) {
    hr_status status = check_id(request->user_id, max_id_nbytes, err);
    if (status != HR_OK) return hr_error_prefix(err, "user_id");
    status = check_items(request, max_items, max_id_nbytes, err);
    if (status == HR_OK) status = check_attributes(request->attributes, err);
    if (status != HR_OK) return status;
    if (request->priority > 1)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "priority: expected 0 (normal) or 1 (batch), found %u",
                            (unsigned)request->priority);
    if (request->n_forced_variations > 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "forced_variations: this server does not allow them");
    return HR_OK;
}
