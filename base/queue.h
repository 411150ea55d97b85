/* A bounded first-in-first-out queue of pointers between threads (many producers, many consumers).
 * Never grows after creation. Items are borrowed. */
#ifndef HOMERANK_BASE_QUEUE_H
#define HOMERANK_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hr_queue hr_queue;

hr_queue *hr_queue_create(size_t capacity); /* NULL when out of memory */
void hr_queue_destroy(hr_queue *queue);     /* must be empty; NULL is allowed */

/* False at once where the queue is full or closed. */
bool hr_queue_try_push(hr_queue *queue, void *item);

/* Waits for an item; NULL once the queue is closed and empty. */
void *hr_queue_pop(hr_queue *queue);

/* Wakes all that wait; items already in it are still handed out. */
void hr_queue_close(hr_queue *queue);

#endif
