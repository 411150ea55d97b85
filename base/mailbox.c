/* A stack that senders push to and the receiver takes whole: see mailbox.h. */
#include "base/mailbox.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct hr_mailbox {
    /* The newest message, its next the one before. A message is released to the receiver by its push and
     * acquired by the exchange. */
    _Atomic(hr_mail *) newest;
    sem_t
        filled; /* posted where a message came into the empty box: at most once too often, never too seldom */
};

hr_mailbox *hr_mailbox_create(void) {
    hr_mailbox *mailbox = malloc(sizeof *mailbox);
    if (mailbox == NULL) return NULL;
    atomic_init(&mailbox->newest, NULL);
    sem_init(&mailbox->filled, 0, 0);
    return mailbox;
}

void hr_mailbox_destroy(hr_mailbox *mailbox) {
    if (mailbox == NULL) return;
    sem_destroy(&mailbox->filled);
    free(mailbox);
}

void hr_mailbox_put(hr_mailbox *mailbox, hr_mail *mail) {
    hr_mail *before = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);
    do mail->next = before;
    while (!atomic_compare_exchange_weak_explicit(&mailbox->newest, &before, mail, memory_order_release,
                                                  memory_order_relaxed));
    if (before == NULL) sem_post(&mailbox->filled);
}

static hr_mail *reversed(hr_mail *newest) {
    hr_mail *oldest = NULL;
    while (newest != NULL) {
        hr_mail *before = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = before;
    }
    return oldest;
}

hr_mail *hr_mailbox_take(hr_mailbox *mailbox, uint64_t until_ns) {
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                                   .tv_nsec = (long)(until_ns % 1000000000u)};
    for (;;) {
        hr_mail *newest = atomic_exchange_explicit(&mailbox->newest, NULL, memory_order_acquire);
        if (newest != NULL) return reversed(newest);
        int failed = until_ns == UINT64_MAX ? sem_wait(&mailbox->filled)
                                            : sem_clockwait(&mailbox->filled, CLOCK_MONOTONIC, &until);
        if (failed != 0 && errno == ETIMEDOUT) return NULL;
    }
}
