/* The circuit breaker, its backoff, and the window of latencies: time is given, so nothing here waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "features/redis_breaker.h"

enum { PROBE_NS = 1000 };

static hr_redis_breaker opened(void) {
    hr_redis_breaker b = hr_redis_breaker_init(PROBE_NS);
    for (int i = 1; i < HR_BREAKER_FAILURES; i++) assert_false(hr_redis_breaker_failed(&b));
    assert_true(hr_redis_breaker_admits(&b, 0));
    assert_true(hr_redis_breaker_failed(&b));
    return b;
}

static void failures_in_a_row_open_it(void **state) {
    (void)state;
    hr_redis_breaker b = opened();
    assert_false(hr_redis_breaker_admits(&b, 0));
    assert_false(hr_redis_breaker_admits(&b, UINT64_MAX));
    assert_false(hr_redis_breaker_failed(&b)); /* it is open already */
}

static void an_answer_in_between_keeps_it_closed(void **state) {
    (void)state;
    hr_redis_breaker b = hr_redis_breaker_init(PROBE_NS);
    for (int i = 0; i < 10 * HR_BREAKER_FAILURES; i++) {
        assert_false(hr_redis_breaker_failed(&b));
        if (i % (HR_BREAKER_FAILURES - 1) == 0) hr_redis_breaker_answered(&b);
        assert_true(hr_redis_breaker_admits(&b, 0));
    }
}

static void half_open_it_admits_one_read_at_a_time(void **state) {
    (void)state;
    hr_redis_breaker b = opened();
    hr_redis_breaker_answered(&b); /* late: says nothing of now */
    assert_false(hr_redis_breaker_admits(&b, 0));
    hr_redis_breaker_half_open(&b);
    assert_true(hr_redis_breaker_admits(&b, 10));
    assert_true(hr_redis_breaker_admits(&b, 10));
    hr_redis_breaker_take(&b, 10);
    assert_false(hr_redis_breaker_admits(&b, 10));
    assert_false(hr_redis_breaker_admits(&b, 10 + PROBE_NS - 1));
    assert_true(hr_redis_breaker_admits(&b, 10 + PROBE_NS)); /* what became of that one is not known */
    hr_redis_breaker_answered(&b);
    assert_true(hr_redis_breaker_admits(&b, 11));
    hr_redis_breaker_take(&b, 11);
    assert_true(hr_redis_breaker_admits(&b, 11));
}

static void half_open_one_failure_opens_it_again(void **state) {
    (void)state;
    hr_redis_breaker b = opened();
    hr_redis_breaker_half_open(&b);
    assert_true(hr_redis_breaker_failed(&b));
    assert_false(hr_redis_breaker_admits(&b, UINT64_MAX));
    hr_redis_breaker_half_open(&b);
    hr_redis_breaker_answered(&b);
    assert_false(hr_redis_breaker_failed(&b)); /* closed: the count begins anew */
}

static void waits_double_up_to_a_most_with_jitter_and_begin_anew(void **state) {
    (void)state;
    hr_redis_backoff b = hr_redis_backoff_init(20, 1000);
    for (uint32_t expected = 20, i = 0; i < 12; i++) {
        uint32_t wait_ms = hr_redis_backoff_next_ms(&b);
        assert_in_range(wait_ms, expected - expected / 2, expected);
        expected = expected * 2 > 1000 ? 1000 : expected * 2;
    }
    hr_redis_backoff_reset(&b);
    assert_in_range(hr_redis_backoff_next_ms(&b), 10, 20);

    hr_redis_backoff other = hr_redis_backoff_init(1000000, 1000000),
                     third = hr_redis_backoff_init(1000000, 1000000);
    assert_int_not_equal(hr_redis_backoff_next_ms(&other), hr_redis_backoff_next_ms(&third));
    hr_redis_backoff shortest = hr_redis_backoff_init(1, 1);
    for (int i = 0; i < 10; i++) assert_int_equal(hr_redis_backoff_next_ms(&shortest), 1);
}

static void quantiles_are_of_the_last_answers(void **state) {
    (void)state;
    hr_redis_latency l = {.n_samples = 0};
    for (uint64_t i = 0; i < HR_LATENCY_SAMPLES - 1; i++) hr_redis_latency_add(&l, 1000000);
    assert_int_equal(l.p95_us, 0); /* too few to say */
    hr_redis_latency_add(&l, 1000000);
    assert_int_equal(l.p50_us, 1000);
    assert_int_equal(l.p95_us, 1000);
    for (uint64_t i = 1; i <= HR_LATENCY_SAMPLES; i++) hr_redis_latency_add(&l, i * 1000);
    assert_int_equal(l.p50_us, HR_LATENCY_SAMPLES / 2 + 1);
    assert_in_range(l.p95_us, HR_LATENCY_SAMPLES * 94 / 100, HR_LATENCY_SAMPLES * 96 / 100 + 1);
    for (uint64_t i = 0; i < HR_LATENCY_SAMPLES; i++) hr_redis_latency_add(&l, UINT64_MAX);
    assert_int_equal(l.p50_us, UINT32_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_in_a_row_open_it),
        cmocka_unit_test(an_answer_in_between_keeps_it_closed),
        cmocka_unit_test(half_open_it_admits_one_read_at_a_time),
        cmocka_unit_test(half_open_one_failure_opens_it_again),
        cmocka_unit_test(waits_double_up_to_a_most_with_jitter_and_begin_anew),
        cmocka_unit_test(quantiles_are_of_the_last_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
