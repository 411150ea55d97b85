/* When to send: see load_plan.h. */
#include "service/load_plan.h"

#include <string.h>

#include "service/load_text.h"

static const double MIN_RATE = 0.001, MAX_RATE = 1e6, MIN_SECONDS = 0.001, MAX_SECONDS = 86400;

hr_status hr_load_plan_add(hr_load_plan *plan, double rate, double seconds, bool warm_up, hr_error *err) {
    if (plan->n_phases == HR_LOAD_MAX_PHASES)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected at most %d phases, found more",
                            HR_LOAD_MAX_PHASES);
    uint64_t begin_ns = plan->n_phases > 0 ? hr_load_plan_end_ns(plan) : 0;
    uint64_t end_ns = begin_ns + (uint64_t)(seconds * 1e9);
    if ((double)end_ns > MAX_SECONDS * 1e9)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected at most %g seconds in all, found more",
                            MAX_SECONDS);
    plan->phases[plan->n_phases++] =
        (hr_load_phase){.rate = rate, .begin_ns = begin_ns, .end_ns = end_ns, .warm_up = warm_up};
    return HR_OK;
}

hr_status hr_load_read_rate(const char *text, double *rate, hr_error *err) {
    return hr_load_read_decimal(text, MIN_RATE, MAX_RATE, rate, err);
}

/* "70:10" at text[0..nbytes). */
static hr_status read_phase(const char *text, size_t nbytes, double *rate, double *seconds, hr_error *err) {
    char copy[64];
    const char *colon = memchr(text, ':', nbytes);
    if (colon == NULL || nbytes >= sizeof copy)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected RATE:SECONDS, found %s",
                            hr_quote(text, nbytes).text);
    memcpy(copy, text, nbytes);
    copy[nbytes] = '\0';
    copy[colon - text] = '\0';
    hr_status status = hr_load_read_decimal(copy, 0, MAX_RATE, rate, err);
    if (status != HR_OK) return hr_error_prefix(err, "requests per second");
    status = hr_load_read_decimal(copy + (colon - text) + 1, MIN_SECONDS, MAX_SECONDS, seconds, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "seconds");
}

hr_status hr_load_plan_read_phases(hr_load_plan *plan, const char *text, double warmup_s, hr_error *err) {
    for (bool more = true; more;) {
        size_t nbytes = strcspn(text, ",");
        double rate = 0, seconds = 0;
        hr_status status = read_phase(text, nbytes, &rate, &seconds, err);
        if (status == HR_OK && warmup_s > 0) status = hr_load_plan_add(plan, rate, warmup_s, true, err);
        if (status == HR_OK) status = hr_load_plan_add(plan, rate, seconds, false, err);
        if (status != HR_OK) return status;
        warmup_s = 0;
        more = text[nbytes] == ',';
        text += nbytes + 1;
    }
    return HR_OK;
}

uint64_t hr_load_plan_end_ns(const hr_load_plan *plan) {
    return plan->phases[plan->n_phases - 1].end_ns;
}

uint32_t hr_load_plan_phase_at(const hr_load_plan *plan, uint64_t at_ns) {
    uint32_t p = 0;
    while (p + 1 < plan->n_phases && at_ns >= plan->phases[p].end_ns) p++;
    return p;
}
