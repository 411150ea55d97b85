/* Store URIs (DESIGN 5): none:  lmdb:PATH  redis://[USER:PASSWORD@]HOST:PORT[/DB]
 * redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT..., each with ?prefix=hr&layout=packed; a cluster's
 * also with read=master|replica and hedge=off|on. The layout feast has, instead of prefix, project=,
 * version=3|2, user_view=, user_key=user_id, user_type=string|int64|int32, item_view=, item_key=item_id,
 * item_type= and max_age= (seconds). Parts are percent-decoded. Private to features/. */
#ifndef HOMERANK_FEATURES_STORE_URI_H
#define HOMERANK_FEATURES_STORE_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "features/feast_key.h"
#include "schema/schema.h"

typedef enum hr_store_kind {
    HR_STORE_NONE,
    HR_STORE_LMDB,
    HR_STORE_REDIS,
    HR_STORE_REDIS_CLUSTER
} hr_store_kind;
typedef enum hr_store_layout { HR_LAYOUT_PACKED, HR_LAYOUT_HASH, HR_LAYOUT_FEAST } hr_store_layout;

enum {
    HR_STORE_PREFIX_SIZE = 65,
    HR_STORE_PATH_SIZE = 4096,
    HR_STORE_HOST_SIZE = 256,
    HR_STORE_SECRET_SIZE = 513,
    HR_STORE_MAX_SERVERS = 16,
    HR_STORE_LABEL_SIZE = 1024
};

typedef struct hr_address {
    char host[HR_STORE_HOST_SIZE]; /* name, IPv4, or IPv6 without its brackets */
    uint16_t port;
} hr_address;

/* Names, IPv4 and IPv6 addresses (with a zone) that fit an hr_address; they have no characters that would not
 * be printable in logs and errors. */
bool hr_host_is_valid(const char *text, size_t nbytes);

/* "HOST:PORT", an IPv6 host in brackets. */
enum { HR_ADDRESS_TEXT_SIZE = HR_STORE_HOST_SIZE + 8 };
void hr_address_format(const hr_address *address, char text[HR_ADDRESS_TEXT_SIZE]);

/* All texts are NUL-terminated and hold no other NUL. */
typedef struct hr_store_uri {
    hr_store_kind kind;
    hr_store_layout layout;
    char prefix[HR_STORE_PREFIX_SIZE];
    hr_feast_options feast;        /* layout feast */
    char path[HR_STORE_PATH_SIZE]; /* lmdb */
    hr_address
        servers[HR_STORE_MAX_SERVERS]; /* redis: one; cluster: those that are asked for its map first */
    size_t n_servers;
    uint32_t db;        /* redis */
    bool read_replicas; /* cluster: rather than the masters */
    bool hedge;         /* cluster: a read that takes longer than most is asked of another node too */
    char user[HR_STORE_SECRET_SIZE];     /* redis; empty: none */
    char password[HR_STORE_SECRET_SIZE]; /* redis; empty: none; from the environment where the URI has none */
    char label[HR_STORE_LABEL_SIZE];     /* the URI without user and password, printable ASCII */
} hr_store_uri;

/* "packed", "hash" or "feast". */
const char *hr_store_layout__name(hr_store_layout layout);

/* Errors: INVALID_ARGUMENT naming the part, what was expected and what was found; the password is never
 * shown. */
hr_status hr_store_uri_parse(const char *text, hr_store_uri *uri, hr_error *err);

/* "user" or "item": the middle of a key, and the entity of a line of records. */
const char *hr_entity__name(hr_entity entity);

#endif
