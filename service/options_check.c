/* What the values of some options look like: the checks of the table's rows. */
#include <string.h>

#include "features/store.h"
#include "service/analysis/analysis.h"
#include "service/load_plan.h"
#include "service/load_text.h"
#include "service/options_table.h"
#include "service/server_address.h"

hr_status hr_option_check_address(const char *text, const hr_option_list *before, hr_error *err) {
    (void)before;
    hr_address address;
    if (hr_address_parse("", text, &address, NULL) == HR_OK) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected HOST:PORT (an IPv6 host in brackets), found %s",
                        hr_quote(text, strlen(text)).text);
}

hr_status hr_option_check_store(const char *text, const hr_option_list *before, hr_error *err) {
    (void)before;
    return hr_store_check(text, err);
}

hr_status hr_option_check_pair(const char *text, const hr_option_list *before, hr_error *err) {
    size_t n_key = strcspn(text, "=");
    if (n_key == 0 || text[n_key] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected KEY=VALUE, found %s",
                            hr_quote(text, strlen(text)).text);
    for (size_t i = 0; i < before->n; i++) {
        if (strncmp(before->values[i], text, n_key + 1) == 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "expected %s once, found again",
                                hr_quote(text, n_key).text);
    }
    return HR_OK;
}

hr_status hr_option_check_rate(const char *text, const hr_option_list *before, hr_error *err) {
    (void)before;
    double rate;
    return hr_load_read_rate(text, &rate, err);
}

hr_status hr_option_check_phases(const char *text, const hr_option_list *before, hr_error *err) {
    (void)before;
    hr_load_plan plan = {0};
    return hr_load_plan_read_phases(&plan, text, 0, err);
}

hr_status hr_option_check_sizes(const char *text, const hr_option_list *before, hr_error *err) {
    (void)before;
    hr_load_sizes sizes;
    return hr_load_read_sizes(text, &sizes, err);
}

hr_status hr_option_check_range(const char *text, const hr_option_list *before, hr_error *err) {
    (void)before;
    hr_load_range range;
    return hr_load_read_range(text, &range, err);
}

hr_status hr_option_check_zipf(const char *text, const hr_option_list *before, hr_error *err) {
    (void)before;
    double exponent;
    return hr_load_read_decimal(text, 0, HR_LOAD_MAX_ZIPF, &exponent, err);
}

hr_status hr_option_check_version(const char *text, const hr_option_list *before, hr_error *err) {
    enum { MAX_DIGITS = 19 };
    size_t n_name = strcspn(text, "@:");
    const char *digits = text[n_name] == '@' ? text + n_name + 1 : "";
    size_t n_digits = strspn(digits, "0123456789");
    if (n_name == 0 || n_digits == 0 || n_digits > MAX_DIGITS || digits[0] == '0' || digits[n_digits] != '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected NAME@VERSION, found %s",
                            hr_quote(text, strlen(text)).text);
    for (size_t i = 0; i < before->n; i++) {
        if (strcmp(before->values[i], text) == 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "expected %s once, found again", text);
    }
    return HR_OK;
}

hr_status hr_option_check_weights(const char *text, const hr_option_list *before, hr_error *err) {
    (void)before;
    double weights[HR_ANALYSIS_MAX_WEIGHTS];
    size_t n_weights;
    return hr_analysis_read_weights(text, weights, &n_weights, err);
}
