/* Messages from any threads to one, as a lock-free list in the order of arrival.
 *
 * A sender takes no lock and waits for nobody, so that threads of different priorities may share a mailbox:
 * one that is preempted half-way holds nobody up.
 * Thread rule: any thread may put; one thread takes, and creates and destroys.
 */
#ifndef HOMERANK_BASE_MAILBOX_H
#define HOMERANK_BASE_MAILBOX_H

#include <stdint.h>

/* First in every message. From put to take it is the mailbox's, with all of the message. */
typedef struct hr_mail hr_mail;
struct hr_mail {
    hr_mail *next;
};

typedef struct hr_mailbox hr_mailbox;

hr_mailbox *hr_mailbox_create(void); /* NULL when out of memory */

/* Every put must have returned. NULL is allowed; messages still in it are left to their owners. */
void hr_mailbox_destroy(hr_mailbox *mailbox);

void hr_mailbox_put(hr_mailbox *mailbox, hr_mail *mail);

/* All messages that have come, the oldest first; waits for one until until_ns (hr_clock_ns; 0: not at all,
 * UINT64_MAX: for ever). NULL where none came. */
hr_mail *hr_mailbox_take(hr_mailbox *mailbox, uint64_t until_ns);

#endif
