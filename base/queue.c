/* A ring of pointers under one lock: see queue.h. */
#include "base/queue.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

struct hr_queue {
    pthread_mutex_t items_lock;  /* guards everything below */
    pthread_cond_t items_change; /* an item came, or the queue was closed */
    size_t capacity;
    size_t head; /* index of the oldest item */
    size_t length;
    bool closed;
    void *items[]; /* (capacity) borrowed */
};

hr_queue *hr_queue_create(size_t capacity) {
    if (capacity > (SIZE_MAX / 2 - sizeof(hr_queue)) / sizeof(void *)) return NULL;
    hr_queue *queue = malloc(sizeof *queue + capacity * sizeof queue->items[0]);
    if (queue == NULL) return NULL;
    queue->capacity = capacity;
    queue->head = 0;
    queue->length = 0;
    queue->closed = false;
    if (pthread_mutex_init(&queue->items_lock, NULL) != 0) goto no_lock;
    if (pthread_cond_init(&queue->items_change, NULL) != 0) goto no_condition;
    return queue;

no_condition:
    pthread_mutex_destroy(&queue->items_lock);
no_lock:
    free(queue);
    return NULL;
}

void hr_queue_destroy(hr_queue *queue) {
    if (queue == NULL) return;
    assert(queue->length == 0);
    pthread_cond_destroy(&queue->items_change);
    pthread_mutex_destroy(&queue->items_lock);
    free(queue);
}

bool hr_queue_try_push(hr_queue *queue, void *item) {
    pthread_mutex_lock(&queue->items_lock);
    bool room = !queue->closed && queue->length < queue->capacity;
    if (room) {
        queue->items[(queue->head + queue->length) % queue->capacity] = item;
        queue->length++;
        pthread_cond_signal(&queue->items_change);
    }
    pthread_mutex_unlock(&queue->items_lock);
    return room;
}

void *hr_queue_pop(hr_queue *queue) {
    pthread_mutex_lock(&queue->items_lock);
    while (queue->length == 0 && !queue->closed) pthread_cond_wait(&queue->items_change, &queue->items_lock);
    void *item = NULL;
    if (queue->length > 0) {
        item = queue->items[queue->head];
        queue->head = (queue->head + 1) % queue->capacity;
        queue->length--;
    }
    pthread_mutex_unlock(&queue->items_lock);
    return item;
}

void hr_queue_close(hr_queue *queue) {
    pthread_mutex_lock(&queue->items_lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->items_change);
    pthread_mutex_unlock(&queue->items_lock);
}
