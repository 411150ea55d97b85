/* The mailbox, alone and between threads. */
#include "base/mailbox.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/thread.h"

typedef struct letter {
    hr_mail mail; /* first */
    unsigned sender, number;
} letter;

static void letters_come_out_in_order_and_once(void **state) {
    (void)state;
    letter letters[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    hr_mailbox *mailbox = hr_mailbox_create();
    assert_null(hr_mailbox_take(mailbox, 0));
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) hr_mailbox_put(mailbox, &letters[i].mail);
        hr_mail *mail = hr_mailbox_take(mailbox, 0);
        for (int i = 0; i < 3; i++, mail = mail->next) assert_ptr_equal(mail, &letters[i].mail);
        assert_null(mail);
        assert_null(hr_mailbox_take(mailbox, 0));
    }
    hr_mailbox_destroy(mailbox);
    hr_mailbox_destroy(NULL);
}

static void taking_waits_no_longer_than_asked(void **state) {
    (void)state;
    hr_mailbox *mailbox = hr_mailbox_create();
    uint64_t until_ns = hr_clock_ns() + 20000000u;
    assert_null(hr_mailbox_take(mailbox, until_ns));
    assert_true(hr_clock_ns() >= until_ns);
    letter one = {.number = 1};
    hr_mailbox_put(mailbox, &one.mail);
    assert_ptr_equal(hr_mailbox_take(mailbox, UINT64_MAX), &one.mail);
    hr_mailbox_destroy(mailbox);
}

enum { SENDERS = 4, LETTERS_EACH = 20000 };

typedef struct sender {
    hr_mailbox *mailbox;
    letter *letters; /* (LETTERS_EACH) */
} sender;

static void *send_all(void *arg) {
    const sender *s = arg;
    for (unsigned i = 0; i < LETTERS_EACH; i++) hr_mailbox_put(s->mailbox, &s->letters[i].mail);
    return NULL;
}

static void every_letter_of_many_senders_arrives_in_its_senders_order(void **state) {
    (void)state;
    hr_mailbox *mailbox = hr_mailbox_create();
    sender senders[SENDERS];
    pthread_t threads[SENDERS];
    unsigned next[SENDERS] = {0};
    for (unsigned s = 0; s < SENDERS; s++) {
        senders[s] = (sender){mailbox, calloc(LETTERS_EACH, sizeof(letter))};
        for (unsigned i = 0; i < LETTERS_EACH; i++)
            senders[s].letters[i] = (letter){.sender = s, .number = i};
        assert_int_equal(hr_thread_start(&threads[s], "sender", send_all, &senders[s], NULL), HR_OK);
    }
    for (unsigned n = 0; n < SENDERS * LETTERS_EACH;) {
        hr_mail *mail = hr_mailbox_take(mailbox, UINT64_MAX);
        for (; mail != NULL; mail = mail->next, n++) {
            const letter *arrived = (letter *)mail;
            assert_int_equal(arrived->number, next[arrived->sender]);
            next[arrived->sender]++;
        }
    }
    assert_null(hr_mailbox_take(mailbox, 0));
    for (unsigned s = 0; s < SENDERS; s++) {
        pthread_join(threads[s], NULL);
        free(senders[s].letters);
    }
    hr_mailbox_destroy(mailbox);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_come_out_in_order_and_once),
        cmocka_unit_test(taking_waits_no_longer_than_asked),
        cmocka_unit_test(every_letter_of_many_senders_arrives_in_its_senders_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
