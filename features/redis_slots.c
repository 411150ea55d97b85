/* Redis Cluster's rules: see redis_slots.h. */
#include "features/redis_slots.h"

#include <stdio.h>
#include <string.h>

/* CRC16, polynomial 0x1021, initial value 0, not reflected; nibble by nibble. */
static uint16_t crc16(uint16_t crc, const char *bytes, size_t nbytes) {
    static const uint16_t of_nibble[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50A5, 0x60C6, 0x70E7,
                                           0x8108, 0x9129, 0xA14A, 0xB16B, 0xC18C, 0xD1AD, 0xE1CE, 0xF1EF};
    for (size_t i = 0; i < nbytes; i++) {
        uint8_t byte = (uint8_t)bytes[i];
        crc = (uint16_t)(crc << 4) ^ of_nibble[(crc >> 12) ^ (byte >> 4)];
        crc = (uint16_t)(crc << 4) ^ of_nibble[(crc >> 12) ^ (byte & 15)];
    }
    return crc;
}

/* A key in two pieces. */
typedef struct joined {
    const char *head, *tail;
    size_t n_head, n;
} joined;

/* Where c stands first in key[from, n); n: nowhere. */
static size_t find_byte(const joined *key, size_t from, char c) {
    if (from < key->n_head) {
        const char *hit = memchr(key->head + from, c, key->n_head - from);
        if (hit != NULL) return (size_t)(hit - key->head);
        from = key->n_head;
    }
    const char *rest = key->tail + (from - key->n_head);
    const char *hit = from < key->n ? memchr(rest, c, key->n - from) : NULL;
    return hit != NULL ? from + (size_t)(hit - rest) : key->n;
}

uint16_t hr_redis_key_slot(const char *head, size_t head_nbytes, const char *tail, size_t tail_nbytes) {
    const joined key = {head, tail, head_nbytes, head_nbytes + tail_nbytes};
    size_t begin = 0, end = key.n;
    size_t open = find_byte(&key, 0, '{');
    size_t close = open < key.n ? find_byte(&key, open + 1, '}') : key.n;
    if (close < key.n && close > open + 1) {
        begin = open + 1;
        end = close;
    }
    uint16_t crc = 0;
    size_t in_head = end < key.n_head ? end : key.n_head;
    if (begin < in_head) crc = crc16(crc, head + begin, in_head - begin);
    size_t in_tail = begin > key.n_head ? begin : key.n_head;
    if (in_tail < end) crc = crc16(crc, tail + (in_tail - key.n_head), end - in_tail);
    return crc % HR_REDIS_N_SLOTS;
}

/* --- the map -------------------------------------------------------------------------------------------- */

static hr_status expected(hr_error *err, const char *what, const hr_redis_value *found) {
    static const char *const kinds[] = {"nil", "a text", "a status", "an error", "an integer", "an array"};
    return hr_error_set(err, HR_INVALID_ARGUMENT, "cluster map: expected %s, found %s", what,
                        kinds[found->type]);
}

static hr_status full(hr_error *err) {
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "cluster map: too large");
}

/* The value beside a name, in an array of names and values; NULL where it is not there. */
static const hr_redis_value *find(const hr_redis_value *pairs, const char *name) {
    for (size_t i = 0; i + 1 < pairs->n_elements; i += 2)
        if (hr_redis_value_is(&pairs->elements[i], name)) return &pairs->elements[i + 1];
    return NULL;
}

/* A host as a node announces it: none, "" and "?" mean the one that was asked. */
static hr_status read_host(const hr_redis_value *host, const char *asked_host, hr_address *address,
                           hr_error *err) {
    if (host->type != HR_REDIS_NIL && host->type != HR_REDIS_TEXT) return expected(err, "a host", host);
    bool unsaid = host->type == HR_REDIS_NIL || host->nbytes == 0 || hr_redis_value_is(host, "?");
    const char *text = unsaid ? asked_host : host->text;
    if (!hr_host_is_valid(text, unsaid ? strlen(text) : host->nbytes))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "cluster map: expected a host, found %s",
                            hr_quote(text, strlen(text)).text);
    strcpy(address->host, text);
    return HR_OK;
}

static hr_status read_port(const hr_redis_value *port, hr_address *address, hr_error *err) {
    if (port->type != HR_REDIS_INTEGER || port->integer < 0 || port->integer > 65535)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "cluster map: expected a port from 0 to 65535");
    address->port = (uint16_t)port->integer;
    return HR_OK;
}

static hr_status claim_slots(const hr_redis_value *first, const hr_redis_value *last, size_t shard,
                             hr_redis_map *map, hr_error *err) {
    if (first->type != HR_REDIS_INTEGER || last->type != HR_REDIS_INTEGER || first->integer < 0 ||
        last->integer < first->integer || last->integer >= HR_REDIS_N_SLOTS)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "cluster map: expected a range of slots below %d",
                            HR_REDIS_N_SLOTS);
    for (int64_t slot = first->integer; slot <= last->integer; slot++) {
        if (map->shard_of[slot] != HR_REDIS_NO_SHARD)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "cluster map: slot %d is served twice", (int)slot);
        map->shard_of[slot] = (uint16_t)shard;
    }
    return HR_OK;
}

static hr_status map_begin(const hr_redis_value *answer, hr_arena *arena, hr_redis_map *map, hr_error *err) {
    if (answer->type != HR_REDIS_ARRAY) return expected(err, "an array of shards", answer);
    map->n_shards = 0;
    map->shards = hr_arena_calloc(arena, answer->n_elements, sizeof *map->shards);
    for (size_t slot = 0; slot < HR_REDIS_N_SLOTS; slot++) map->shard_of[slot] = HR_REDIS_NO_SHARD;
    return map->shards != NULL ? HR_OK : full(err);
}

static hr_status check_room(const hr_redis_map *map, hr_error *err) {
    if (map->n_shards < HR_REDIS_MAX_SHARDS) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "cluster map: expected at most %d shards",
                        HR_REDIS_MAX_SHARDS);
}

/* --- CLUSTER SHARDS ------------------------------------------------------------------------------------- */

typedef struct shard_node {
    hr_address address;
    bool is_master, is_online;
} shard_node;

static hr_status read_shard_node(const hr_redis_value *pairs, const char *asked_host, shard_node *node,
                                 hr_error *err) {
    if (pairs->type != HR_REDIS_ARRAY) return expected(err, "a node", pairs);
    const hr_redis_value *host = find(pairs, "endpoint"), *port = find(pairs, "port");
    const hr_redis_value *role = find(pairs, "role"), *health = find(pairs, "health");
    if (host == NULL || role == NULL || health == NULL)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "cluster map: expected a node's endpoint, role and health, found none");
    node->is_master = hr_redis_value_is(role, "master");
    node->is_online = hr_redis_value_is(health, "online");
    node->address.port = 0; /* it has none where it serves TLS alone */
    hr_status status = read_host(host, asked_host, &node->address, err);
    if (status == HR_OK && port != NULL) status = read_port(port, &node->address, err);
    return status;
}

/* The master first: one that is online before one that is not. False where there is none. */
static bool order_nodes(shard_node *nodes, size_t n) {
    size_t master = n;
    for (size_t i = 0; i < n; i++)
        if (nodes[i].is_master && nodes[i].address.port != 0 &&
            (master == n || (nodes[i].is_online && !nodes[master].is_online)))
            master = i;
    if (master == n) return false;
    shard_node first = nodes[master];
    nodes[master] = nodes[0];
    nodes[0] = first;
    return true;
}

static hr_status read_shard_nodes(const hr_redis_value *list, const char *asked_host, hr_arena *arena,
                                  hr_redis_shard *shard, hr_error *err) {
    if (list == NULL || list->type != HR_REDIS_ARRAY)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "cluster map: expected a shard's nodes, found none");
    shard_node *nodes = hr_arena_calloc(arena, list->n_elements, sizeof *nodes);
    hr_address *addresses = hr_arena_calloc(arena, list->n_elements, sizeof *addresses);
    if (nodes == NULL || addresses == NULL) return full(err);
    hr_status status = HR_OK;
    for (size_t i = 0; i < list->n_elements && status == HR_OK; i++)
        status = read_shard_node(&list->elements[i], asked_host, &nodes[i], err);
    if (status != HR_OK) return status;
    shard->nodes = addresses;
    shard->n_nodes = 0;
    if (!order_nodes(nodes, list->n_elements)) return HR_OK;
    for (size_t i = 0; i < list->n_elements; i++)
        if (i == 0 || (nodes[i].is_online && !nodes[i].is_master && nodes[i].address.port != 0))
            addresses[shard->n_nodes++] = nodes[i].address;
    return HR_OK;
}

hr_status hr_redis_map_read_shards(const hr_redis_value *answer, const char *asked_host, hr_arena *arena,
                                   hr_redis_map *map, hr_error *err) {
    hr_status status = map_begin(answer, arena, map, err);
    for (size_t i = 0; status == HR_OK && i < answer->n_elements; i++) {
        const hr_redis_value *pairs = &answer->elements[i];
        if (pairs->type != HR_REDIS_ARRAY) return expected(err, "a shard", pairs);
        const hr_redis_value *slots = find(pairs, "slots");
        if (slots == NULL || slots->type != HR_REDIS_ARRAY || slots->n_elements % 2 != 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "cluster map: expected a shard's ranges of slots");
        if (slots->n_elements == 0) continue; /* a master that serves nothing, or no longer */
        status = check_room(map, err);
        if (status == HR_OK)
            status =
                read_shard_nodes(find(pairs, "nodes"), asked_host, arena, &map->shards[map->n_shards], err);
        if (status != HR_OK || map->shards[map->n_shards].n_nodes == 0) continue;
        size_t shard = map->n_shards++;
        for (size_t s = 0; s < slots->n_elements && status == HR_OK; s += 2)
            status = claim_slots(&slots->elements[s], &slots->elements[s + 1], shard, map, err);
    }
    return status;
}

/* --- CLUSTER SLOTS -------------------------------------------------------------------------------------- */

static bool same_address(const hr_address *a, const hr_address *b) {
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* [host, port, ...] */
static hr_status read_slots_node(const hr_redis_value *node, const char *asked_host, hr_address *address,
                                 hr_error *err) {
    if (node->type != HR_REDIS_ARRAY || node->n_elements < 2)
        return expected(err, "a node's host and port", node);
    hr_status status = read_host(&node->elements[0], asked_host, address, err);
    return status != HR_OK ? status : read_port(&node->elements[1], address, err);
}

/* The shard of the range's master, made where it is the master's first range; MAX_SHARDS where it has no
 * port. A range says all replicas of its own; those of a shard's first range are taken. */
static hr_status find_or_add_shard(const hr_redis_value *range, const char *asked_host, hr_arena *arena,
                                   hr_redis_map *map, size_t *shard, hr_error *err) {
    hr_address master;
    hr_status status = read_slots_node(&range->elements[2], asked_host, &master, err);
    if (status != HR_OK) return status;
    *shard = HR_REDIS_MAX_SHARDS;
    if (master.port == 0) return HR_OK;
    for (*shard = 0; *shard < map->n_shards; ++*shard)
        if (same_address(&map->shards[*shard].nodes[0], &master)) return HR_OK;
    status = check_room(map, err);
    if (status != HR_OK) return status;
    hr_address *addresses = hr_arena_calloc(arena, range->n_elements - 2, sizeof *addresses);
    if (addresses == NULL) return full(err);
    size_t n = 0;
    for (size_t i = 2; i < range->n_elements && status == HR_OK; i++) {
        status = read_slots_node(&range->elements[i], asked_host, &addresses[n], err);
        n += addresses[n].port != 0;
    }
    map->shards[map->n_shards++] = (hr_redis_shard){addresses, n};
    return status;
}

hr_status hr_redis_map_read_slots(const hr_redis_value *answer, const char *asked_host, hr_arena *arena,
                                  hr_redis_map *map, hr_error *err) {
    hr_status status = map_begin(answer, arena, map, err);
    for (size_t i = 0; status == HR_OK && i < answer->n_elements; i++) {
        const hr_redis_value *range = &answer->elements[i];
        if (range->type != HR_REDIS_ARRAY || range->n_elements < 3)
            return expected(err, "a range of slots and its nodes", range);
        size_t shard;
        status = find_or_add_shard(range, asked_host, arena, map, &shard, err);
        if (status == HR_OK && shard < HR_REDIS_MAX_SHARDS)
            status = claim_slots(&range->elements[0], &range->elements[1], shard, map, err);
    }
    return status;
}

/* --- errors of nodes ------------------------------------------------------------------------------------ */

static bool begins(const char *text, const char *word) {
    return strncmp(text, word, strlen(word)) == 0;
}

/* A decimal number up to `stop`; its end, or NULL. */
static const char *read_number(const char *text, char stop, uint32_t most, uint32_t *value) {
    const char *at = text;
    for (*value = 0; *at >= '0' && *at <= '9' && *value <= most; at++)
        *value = *value * 10 + (uint32_t)(*at - '0');
    return at > text && *at == stop && *value <= most ? at + 1 : NULL;
}

/* "<slot> <host>:<port>"; the host may be missing, and may hold colons. */
static bool read_redirection(const char *text, const char *asked_host, hr_redis_refusal *refusal) {
    uint32_t slot, port;
    const char *host = read_number(text, ' ', HR_REDIS_N_SLOTS - 1, &slot);
    const char *colon = host != NULL ? strrchr(host, ':') : NULL;
    if (colon == NULL || read_number(colon + 1, '\0', 65535, &port) == NULL || port == 0) return false;
    size_t nbytes = (size_t)(colon - host);
    if (nbytes == 0 || (nbytes == 1 && host[0] == '?')) {
        host = asked_host;
        nbytes = strlen(host);
    }
    if (!hr_host_is_valid(host, nbytes)) return false;
    refusal->slot = (uint16_t)slot;
    refusal->address.port = (uint16_t)port;
    memcpy(refusal->address.host, host, nbytes);
    refusal->address.host[nbytes] = '\0';
    return true;
}

hr_redis_refusal hr_redis_refusal_read(const char *text, const char *asked_host) {
    hr_redis_refusal refusal = {.kind = HR_REDIS_OTHER_REFUSAL};
    if (begins(text, "MOVED ") && read_redirection(text + 6, asked_host, &refusal))
        refusal.kind = HR_REDIS_MOVED;
    else if (begins(text, "ASK ") && read_redirection(text + 4, asked_host, &refusal))
        refusal.kind = HR_REDIS_ASK;
    else if (begins(text, "TRYAGAIN "))
        refusal.kind = HR_REDIS_TRY_AGAIN;
    else if (begins(text, "CLUSTERDOWN "))
        refusal.kind = HR_REDIS_CLUSTER_DOWN;
    else if (begins(text, "LOADING ") || begins(text, "MASTERDOWN "))
        refusal.kind = HR_REDIS_CANNOT_SERVE;
    else if (begins(text, "WRONGTYPE "))
        refusal.kind = HR_REDIS_WRONG_TYPE;
    return refusal;
}
