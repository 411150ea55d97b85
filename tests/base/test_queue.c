/* The bounded queue, alone and between threads. */
#include "base/queue.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/thread.h"

static void items_come_out_in_order_and_no_more_than_capacity_fit(void **state) {
    (void)state;
    int items[10];
    hr_queue *queue = hr_queue_create(3);
    for (int round = 0; round < 3; round++) { /* the ring wraps */
        for (int i = 0; i < 3; i++) assert_true(hr_queue_try_push(queue, &items[i]));
        assert_false(hr_queue_try_push(queue, &items[3]));
        assert_ptr_equal(hr_queue_pop(queue), &items[0]);
        assert_true(hr_queue_try_push(queue, &items[4]));
        assert_ptr_equal(hr_queue_pop(queue), &items[1]);
        assert_ptr_equal(hr_queue_pop(queue), &items[2]);
        assert_ptr_equal(hr_queue_pop(queue), &items[4]);
    }
    hr_queue_destroy(queue);
    hr_queue_destroy(NULL);
}

static void a_closed_queue_takes_nothing_and_hands_out_the_rest(void **state) {
    (void)state;
    int item;
    hr_queue *queue = hr_queue_create(2);
    assert_true(hr_queue_try_push(queue, &item));
    hr_queue_close(queue);
    assert_false(hr_queue_try_push(queue, &item));
    assert_ptr_equal(hr_queue_pop(queue), &item);
    assert_null(hr_queue_pop(queue));
    hr_queue_destroy(queue);
}

static void a_queue_of_no_capacity_is_always_full(void **state) {
    (void)state;
    int item;
    hr_queue *queue = hr_queue_create(0);
    assert_false(hr_queue_try_push(queue, &item));
    hr_queue_close(queue);
    assert_null(hr_queue_pop(queue));
    hr_queue_destroy(queue);
    assert_null(hr_queue_create(SIZE_MAX / 4));
}

enum { PRODUCERS = 3, CONSUMERS = 3, ITEMS_EACH = 20000 };

typedef struct traffic {
    hr_queue *queue;
    atomic_uint next_producer;
    atomic_uint taken[PRODUCERS * ITEMS_EACH]; /* how often each item came out */
    uint32_t items[PRODUCERS * ITEMS_EACH];
} traffic;

static void *produce(void *arg) {
    traffic *t = arg;
    size_t first = (size_t)atomic_fetch_add(&t->next_producer, 1) * ITEMS_EACH;
    for (size_t i = first; i < first + ITEMS_EACH; i++) {
        t->items[i] = (uint32_t)i;
        while (!hr_queue_try_push(t->queue, &t->items[i])) sched_yield();
    }
    return NULL;
}

/* Counts what it takes; a producer's items must come to one consumer in their order. */
static void *consume(void *arg) {
    traffic *t = arg;
    size_t disorder = 0;
    int64_t latest[PRODUCERS] = {-1, -1, -1};
    for (const uint32_t *item = hr_queue_pop(t->queue); item != NULL; item = hr_queue_pop(t->queue)) {
        atomic_fetch_add(&t->taken[*item], 1);
        size_t producer = *item / ITEMS_EACH;
        disorder += *item <= latest[producer];
        latest[producer] = *item;
    }
    return (void *)disorder;
}

static void between_threads_every_item_comes_out_once_and_in_order(void **state) {
    (void)state;
    traffic *t = calloc(1, sizeof *t);
    t->queue = hr_queue_create(16);
    pthread_t producers[PRODUCERS], consumers[CONSUMERS];
    for (int i = 0; i < CONSUMERS; i++)
        assert_int_equal(hr_thread_start(&consumers[i], "consumer", consume, t, NULL), HR_OK);
    for (int i = 0; i < PRODUCERS; i++)
        assert_int_equal(hr_thread_start(&producers[i], "producer", produce, t, NULL), HR_OK);
    for (int i = 0; i < PRODUCERS; i++) pthread_join(producers[i], NULL);
    hr_queue_close(t->queue); /* also wakes the consumers that wait */
    for (int i = 0; i < CONSUMERS; i++) {
        void *disorder;
        pthread_join(consumers[i], &disorder);
        assert_null(disorder);
    }
    for (size_t i = 0; i < PRODUCERS * ITEMS_EACH; i++) assert_int_equal(atomic_load(&t->taken[i]), 1);
    hr_queue_destroy(t->queue);
    free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_out_in_order_and_no_more_than_capacity_fit),
        cmocka_unit_test(a_closed_queue_takes_nothing_and_hands_out_the_rest),
        cmocka_unit_test(a_queue_of_no_capacity_is_always_full),
        cmocka_unit_test(between_threads_every_item_comes_out_once_and_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
