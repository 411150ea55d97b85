/* Records under way: who is asking the store for one, and who waits for it too (single flight).
 *
 * Thread rule: any thread, between hr_flights_lock and hr_flights_unlock of the key. A flight and its waiters
 * are their owners'; listed, they are the table's. Private to features/.
 */
#ifndef HOMERANK_FEATURES_FLIGHTS_H
#define HOMERANK_FEATURES_FLIGHTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "features/record_cache.h"

typedef struct hr_waiter {
    struct hr_waiter *next; /* of the flight */
    struct hr_wait *wait;   /* whose */
    hr_record_key key;      /* of the record waited for */
    size_t slot;            /* its number in the wait's fetch (hr_fetch__slot) */
    bool delivered;         /* guarded by the wait */
} hr_waiter;

typedef struct hr_flight {
    struct hr_flight *next; /* of its bucket */
    hr_record_key key;
    hr_record_ticket ticket; /* taken before the record was asked for */
    hr_waiter *waiters;
    bool listed;
} hr_flight;

enum { HR_FLIGHT_SHARDS = 64, HR_FLIGHT_BUCKETS = 256 };

typedef struct hr_flights {
    struct {
        pthread_mutex_t lock;
        hr_flight *buckets[HR_FLIGHT_BUCKETS];
    } shards[HR_FLIGHT_SHARDS];
} hr_flights;

void hr_flights_init(hr_flights *flights);
void hr_flights_destroy(hr_flights *flights); /* empty */

void hr_flights_lock(hr_flights *flights, const hr_record_key *key);
void hr_flights_unlock(hr_flights *flights, const hr_record_key *key);

/* The flight of the key, or NULL. */
hr_flight *hr_flights_find(hr_flights *flights, const hr_record_key *key);

void hr_flights_list(hr_flights *flights, hr_flight *flight);
void hr_flights_unlist(hr_flights *flights, hr_flight *flight); /* a no-op where it is not listed */

#endif
