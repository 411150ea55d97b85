/* Records under way: see flights.h. The bits of a hash that choose a shard here are not those that choose one
 * of the cache's. */
#include "features/flights.h"

#include <string.h>

void hr_flights_init(hr_flights *flights) {
    memset(flights, 0, sizeof *flights);
    for (int i = 0; i < HR_FLIGHT_SHARDS; i++) pthread_mutex_init(&flights->shards[i].lock, NULL);
}

void hr_flights_destroy(hr_flights *flights) {
    for (int i = 0; i < HR_FLIGHT_SHARDS; i++) pthread_mutex_destroy(&flights->shards[i].lock);
}

void hr_flights_lock(hr_flights *flights, const hr_record_key *key) {
    pthread_mutex_lock(&flights->shards[key->hash % HR_FLIGHT_SHARDS].lock);
}

void hr_flights_unlock(hr_flights *flights, const hr_record_key *key) {
    pthread_mutex_unlock(&flights->shards[key->hash % HR_FLIGHT_SHARDS].lock);
}

static hr_flight **bucket_of(hr_flights *flights, const hr_record_key *key) {
    return &flights->shards[key->hash % HR_FLIGHT_SHARDS]
                .buckets[key->hash / HR_FLIGHT_SHARDS % HR_FLIGHT_BUCKETS];
}

static bool is_same(const hr_record_key *a, const hr_record_key *b) {
    return a->hash == b->hash && a->fingerprint == b->fingerprint && a->entity == b->entity &&
           a->id_nbytes == b->id_nbytes && memcmp(a->id, b->id, a->id_nbytes) == 0;
}

hr_flight *hr_flights_find(hr_flights *flights, const hr_record_key *key) {
    hr_flight *flight = *bucket_of(flights, key);
    while (flight != NULL && !is_same(&flight->key, key)) flight = flight->next;
    return flight;
}

void hr_flights_list(hr_flights *flights, hr_flight *flight) {
    hr_flight **bucket = bucket_of(flights, &flight->key);
    flight->next = *bucket;
    flight->listed = true;
    *bucket = flight;
}

void hr_flights_unlist(hr_flights *flights, hr_flight *flight) {
    if (!flight->listed) return;
    hr_flight **at = bucket_of(flights, &flight->key);
    while (*at != flight) at = &(*at)->next;
    *at = flight->next;
    flight->listed = false;
}
