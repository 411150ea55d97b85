/* Store URIs: see store_uri.h. The text is cut into spans first, each span is decoded and checked on its own.
 */
#include "features/store_uri.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char known_schemes[] = "none:, lmdb:PATH, redis://[USER:PASSWORD@]HOST:PORT[/DB] or "
                                    "redis-cluster://[USER:PASSWORD@]HOST:PORT,...";
enum { DEFAULT_REDIS_PORT = 6379, MAX_DB = 1 << 20 };

typedef struct span {
    const char *at;
    size_t n;
} span;

static span span_of(const char *begin, const char *end) {
    return (span){begin, (size_t)(end - begin)};
}

/* The first of the characters in s, or its end. */
static const char *find(span s, char c) {
    const char *hit = memchr(s.at, c, s.n);
    return hit != NULL ? hit : s.at + s.n;
}

static bool is_text(span s, const char *text) {
    return s.n == strlen(text) && memcmp(s.at, text, s.n) == 0;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Percent-decodes s into out[size] with a NUL. `part` names it in errors; secret parts are not quoted. */
static hr_status decode(span s, const char *part, char *out, size_t size, hr_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.at[i];
        if (c == '%') {
            int high = i + 2 < s.n ? hex_digit(s.at[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(s.at[i + 2]) : -1;
            if (low < 0)
                return hr_error_set(err, HR_INVALID_ARGUMENT,
                                    "store URI: %s: expected two hex digits after '%%'", part);
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0') return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: %s: holds a NUL byte", part);
        if (n + 1 >= size)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: %s: expected at most %zu bytes", part,
                                size - 1);
        out[n++] = c;
    }
    out[n] = '\0';
    return HR_OK;
}

/* A decimal number without sign in [min, max]. */
static hr_status decode_number(span s, const char *part, uint32_t min, uint32_t max, uint32_t *out,
                               hr_error *err) {
    uint64_t value = 0;
    bool ok = s.n > 0 && s.n <= 9;
    for (size_t i = 0; ok && i < s.n; i++) {
        ok = s.at[i] >= '0' && s.at[i] <= '9';
        value = value * 10 + (uint64_t)(s.at[i] - '0');
    }
    if (!ok || value < min || value > max)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "store URI: %s: expected a number from %u to %u, found %s", part, min, max,
                            hr_quote(s.at, s.n).text);
    *out = (uint32_t)value;
    return HR_OK;
}

/* A parameter of two values, the first its default. */
static hr_status parse_choice(span value, const char *part, const char *const choices[2], bool *second,
                              hr_error *err) {
    *second = is_text(value, choices[1]);
    if (*second || is_text(value, choices[0])) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: parameter %s: expected %s or %s, found %s",
                        part, choices[0], choices[1], hr_quote(value.at, value.n).text);
}

static hr_status parse_prefix(span value, hr_store_uri *uri, hr_error *err) {
    hr_status status = decode(value, "parameter prefix", uri->prefix, sizeof uri->prefix, err);
    if (status == HR_OK && uri->prefix[0] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "store URI: parameter prefix: expected a text, found none");
    return status;
}

static const char *const layouts[] = {"packed", "hash", "feast"};

const char *hr_store_layout__name(hr_store_layout layout) {
    return layouts[layout];
}

static hr_status parse_layout(span value, hr_store_uri *uri, hr_error *err) {
    for (hr_store_layout layout = HR_LAYOUT_PACKED; layout <= HR_LAYOUT_FEAST; layout++) {
        uri->layout = layout;
        if (is_text(value, layouts[layout])) return HR_OK;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "store URI: parameter layout: expected packed, hash or feast, found %s",
                        hr_quote(value.at, value.n).text);
}

/* A cluster's last; those of layout feast in the middle. */
enum {
    PREFIX,
    LAYOUT,
    PROJECT,
    VERSION,
    MAX_AGE,
    USER_VIEW,
    USER_KEY,
    USER_TYPE,
    ITEM_VIEW,
    ITEM_KEY,
    ITEM_TYPE,
    READ,
    HEDGE,
    N_PARAMETERS
};
static const char *const parameter_names[N_PARAMETERS] = {
    "prefix",    "layout",    "project",  "version",   "max_age", "user_view", "user_key",
    "user_type", "item_view", "item_key", "item_type", "read",    "hedge"};

/* A name that Feast gives; it stands in keys, fields and logs. */
static hr_status parse_feast_name(span value, const char *parameter, char name[HR_FEAST_NAME_SIZE],
                                  hr_error *err) {
    char part[32];
    snprintf(part, sizeof part, "parameter %s", parameter);
    hr_status status = decode(value, part, name, HR_FEAST_NAME_SIZE, err);
    if (status == HR_OK && name[0] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: %s: expected a text, found none", part);
    return status;
}

static hr_status parse_feast_type(span value, const char *parameter, hr_feast_id_type *type, hr_error *err) {
    static const char *const types[] = {"string", "int64", "int32"};
    for (*type = HR_FEAST_STRING; *type <= HR_FEAST_INT32; ++*type)
        if (is_text(value, types[*type])) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "store URI: parameter %s: expected string, int64 or int32, found %s", parameter,
                        hr_quote(value.at, value.n).text);
}

static hr_status parse_feast(int parameter, span value, hr_feast_options *feast, hr_error *err) {
    const char *name = parameter_names[parameter];
    hr_feast_entity *entity = &feast->entities[parameter < ITEM_VIEW ? HR_ENTITY_USER : HR_ENTITY_ITEM];
    switch (parameter) {
    case PROJECT: return parse_feast_name(value, name, feast->project, err);
    case VERSION: return decode_number(value, "parameter version", 2, 3, &feast->version, err);
    case MAX_AGE: return decode_number(value, "parameter max_age", 1, 999999999, &feast->max_age_s, err);
    case USER_VIEW:
    case ITEM_VIEW: return parse_feast_name(value, name, entity->view, err);
    case USER_KEY:
    case ITEM_KEY: return parse_feast_name(value, name, entity->join_key, err);
    default: return parse_feast_type(value, name, &entity->id_type, err);
    }
}

/* What layout feast must have, and others may not. */
static hr_status check_feast(const hr_store_uri *uri, const bool seen[N_PARAMETERS], hr_error *err) {
    const bool feast = uri->layout == HR_LAYOUT_FEAST;
    for (int p = 0; p < READ; p++) {
        const bool needed = p == PROJECT || p == USER_VIEW || p == ITEM_VIEW;
        if (feast && needed && !seen[p])
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "store URI: layout feast: expected the parameters project, user_view and "
                                "item_view, found no %s",
                                parameter_names[p]);
        if (seen[p] && p != LAYOUT && (p == PREFIX) == feast)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: parameter %s: layout %s has none",
                                parameter_names[p], layouts[uri->layout]);
    }
    return HR_OK;
}

static hr_status parse_parameter(int parameter, span value, hr_store_uri *uri, hr_error *err) {
    static const char *const reads[] = {"master", "replica"}, *const hedges[] = {"off", "on"};
    switch (parameter) {
    case PREFIX: return parse_prefix(value, uri, err);
    case LAYOUT: return parse_layout(value, uri, err);
    case READ: return parse_choice(value, "read", reads, &uri->read_replicas, err);
    case HEDGE: return parse_choice(value, "hedge", hedges, &uri->hedge, err);
    default: return parse_feast(parameter, value, &uri->feast, err);
    }
}

static hr_status parse_query(span query, hr_store_uri *uri, hr_error *err) {
    const bool cluster = uri->kind == HR_STORE_REDIS_CLUSTER;
    const int n_known = cluster ? N_PARAMETERS : READ;
    const char *end = query.at + query.n;
    bool seen[N_PARAMETERS] = {false};
    while (query.n > 0) {
        const char *stop = find(query, '&');
        span pair = span_of(query.at, stop);
        const char *equals = find(pair, '=');
        span name = span_of(pair.at, equals);
        if (equals == stop)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "store URI: expected NAME=VALUE after '?', found %s",
                                hr_quote(pair.at, pair.n).text);
        int parameter = 0;
        while (parameter < n_known && !is_text(name, parameter_names[parameter])) parameter++;
        if (parameter == n_known)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: expected the parameters %s, found %s",
                                cluster ? "prefix, layout, read and hedge" : "prefix and layout",
                                hr_quote(name.at, name.n).text);
        hr_status status = parse_parameter(parameter, span_of(equals + 1, stop), uri, err);
        if (status != HR_OK) return status;
        if (seen[parameter])
            return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: parameter %s: given twice",
                                parameter_names[parameter]);
        seen[parameter] = true;
        query = span_of(stop < end ? stop + 1 : end, end);
    }
    return check_feast(uri, seen, err);
}

/* [USER[:PASSWORD]@] */
static hr_status parse_user(span s, hr_store_uri *uri, hr_error *err) {
    const char *colon = find(s, ':'), *end = s.at + s.n;
    hr_status status = decode(span_of(s.at, colon), "user", uri->user, sizeof uri->user, err);
    if (status == HR_OK && colon < end)
        status = decode(span_of(colon + 1, end), "password", uri->password, sizeof uri->password, err);
    return status;
}

static bool is_host_char(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("-._:%", c) != NULL);
}

bool hr_host_is_valid(const char *text, size_t nbytes) {
    if (nbytes == 0 || nbytes >= HR_STORE_HOST_SIZE) return false;
    for (size_t i = 0; i < nbytes; i++)
        if (!is_host_char(text[i])) return false;
    return true;
}

void hr_address_format(const hr_address *address, char text[HR_ADDRESS_TEXT_SIZE]) {
    bool ipv6 = strchr(address->host, ':') != NULL;
    snprintf(text, HR_ADDRESS_TEXT_SIZE, "%s%s%s:%u", ipv6 ? "[" : "", address->host, ipv6 ? "]" : "",
             address->port);
}

/* HOST[:PORT], an IPv6 HOST in brackets */
static hr_status parse_server(span s, hr_address *server, hr_error *err) {
    const char *end = s.at + s.n;
    span host;
    const char *after;
    if (s.n > 0 && s.at[0] == '[') {
        const char *close = find(s, ']');
        if (close == end)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "store URI: host: expected ']' after the IPv6 address in %s",
                                hr_quote(s.at, s.n).text);
        host = span_of(s.at + 1, close);
        after = close + 1;
    } else {
        after = find(s, ':');
        host = span_of(s.at, after);
    }
    hr_status status = decode(host, "host", server->host, sizeof server->host, err);
    if (status != HR_OK) return status;
    if (!hr_host_is_valid(server->host, strlen(server->host)) || (after < end && *after != ':'))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: expected HOST:PORT, found %s",
                            hr_quote(s.at, s.n).text);
    uint32_t port = DEFAULT_REDIS_PORT;
    if (after < end) status = decode_number(span_of(after + 1, end), "port", 1, 65535, &port, err);
    server->port = (uint16_t)port;
    return status;
}

/* HOST:PORT, of a cluster one or more between commas */
static hr_status parse_servers(span s, hr_store_uri *uri, hr_error *err) {
    const char *end = s.at + s.n;
    for (;;) {
        const char *comma = uri->kind == HR_STORE_REDIS_CLUSTER ? find(s, ',') : end;
        if (uri->n_servers == HR_STORE_MAX_SERVERS)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "store URI: expected at most %d servers, found more", HR_STORE_MAX_SERVERS);
        hr_status status = parse_server(span_of(s.at, comma), &uri->servers[uri->n_servers++], err);
        if (status != HR_OK || comma == end) return status;
        s = span_of(comma + 1, end);
    }
}

static hr_status parse_database(span s, hr_store_uri *uri, hr_error *err) {
    if (uri->kind == HR_STORE_REDIS) return decode_number(s, "database", 0, MAX_DB, &uri->db, err);
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "store URI: database: expected none, as a cluster has but one, found %s",
                        hr_quote(s.at, s.n).text);
}

/* The password may come from the environment. */
static hr_status complete_password(hr_store_uri *uri, hr_error *err) {
    const char *password = getenv("HOMERANK_REDIS_PASSWORD");
    if (uri->password[0] == '\0' && password != NULL) {
        size_t n = strlen(password);
        if (n >= sizeof uri->password)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "HOMERANK_REDIS_PASSWORD: expected at most %zu bytes",
                                sizeof uri->password - 1);
        memcpy(uri->password, password, n + 1);
    }
    if (uri->user[0] != '\0' && uri->password[0] == '\0')
        return hr_error_set(
            err, HR_INVALID_ARGUMENT,
            "store URI: user: expected a password too, in the URI or in HOMERANK_REDIS_PASSWORD");
    return HR_OK;
}

static hr_status parse_redis(span rest, hr_store_uri *uri, hr_error *err) {
    if (rest.n < 2 || memcmp(rest.at, "//", 2) != 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: expected %s://[USER:PASSWORD@]HOST:PORT%s",
                            uri->kind == HR_STORE_REDIS ? "redis" : "redis-cluster",
                            uri->kind == HR_STORE_REDIS ? "[/DB]" : ",...");
    const char *end = rest.at + rest.n;
    const char *begin = rest.at + 2;
    const char *slash = find(span_of(begin, end), '/');
    const char *host = begin;
    for (const char *c = begin; c < slash; c++)
        if (*c == '@') host = c + 1;
    /* Said before any part is quoted: what follows would show a piece of a password. */
    if (strchr(slash, '@') != NULL)
        return hr_error_set(
            err, HR_INVALID_ARGUMENT,
            "store URI: expected '/', '?' and '@' to be written %%2F, %%3F and %%40 in user, password "
            "and prefix, found a bare one");
    hr_status status = HR_OK;
    if (host > begin) status = parse_user(span_of(begin, host - 1), uri, err);
    if (status == HR_OK) status = parse_servers(span_of(host, slash), uri, err);
    if (status == HR_OK && end - slash > 1) status = parse_database(span_of(slash + 1, end), uri, err);
    return status != HR_OK ? status : complete_password(uri, err);
}

static hr_status parse_lmdb(span rest, hr_store_uri *uri, hr_error *err) {
    hr_status status = decode(rest, "path", uri->path, sizeof uri->path, err);
    if (status != HR_OK) return status;
    if (uri->path[0] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: lmdb: expected a path");
    return HR_OK;
}

/* Percent-encodes what is not plain in a URI; cut where it does not fit. */
static void label_append(hr_store_uri *uri, const char *text) {
    static const char plain[] = "-._~/:";
    size_t n = strlen(uri->label);
    for (; *text != '\0' && n + 4 < sizeof uri->label; text++) {
        char c = *text;
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        n += (size_t)snprintf(uri->label + n, sizeof uri->label - n,
                              alnum || strchr(plain, c) ? "%c" : "%%%02X", (unsigned char)c);
    }
}

static void label_append_servers(hr_store_uri *uri) {
    for (size_t i = 0; i < uri->n_servers; i++) {
        char text[HR_ADDRESS_TEXT_SIZE];
        size_t n = strlen(uri->label);
        hr_address_format(&uri->servers[i], text);
        snprintf(uri->label + n, sizeof uri->label - n, "%s%s", i > 0 ? "," : "", text);
    }
    size_t n = strlen(uri->label);
    if (uri->kind == HR_STORE_REDIS) snprintf(uri->label + n, sizeof uri->label - n, "/%u", uri->db);
}

static void label_format(hr_store_uri *uri) {
    static const char *const schemes[] = {"none:", "lmdb:", "redis://", "redis-cluster://"};
    strcpy(uri->label, schemes[uri->kind]);
    if (uri->kind == HR_STORE_NONE) return;
    if (uri->kind == HR_STORE_LMDB)
        label_append(uri, uri->path);
    else
        label_append_servers(uri);
    size_t n = strlen(uri->label);
    snprintf(uri->label + n, sizeof uri->label - n, "?layout=%s%s%s&%s=", layouts[uri->layout],
             uri->read_replicas ? "&read=replica" : "", uri->hedge ? "&hedge=on" : "",
             uri->layout == HR_LAYOUT_FEAST ? "project" : "prefix");
    label_append(uri, uri->layout == HR_LAYOUT_FEAST ? uri->feast.project : uri->prefix);
}

hr_status hr_store_uri_parse(const char *text, hr_store_uri *uri, hr_error *err) {
    memset(uri, 0, sizeof *uri);
    strcpy(uri->prefix, "hr");
    uri->feast.version = 3;
    strcpy(uri->feast.entities[HR_ENTITY_USER].join_key, "user_id");
    strcpy(uri->feast.entities[HR_ENTITY_ITEM].join_key, "item_id");
    span all = span_of(text, text + strlen(text));
    const char *end = text + all.n, *colon = find(all, ':'), *question = find(all, '?');
    hr_status status = HR_OK;
    span scheme = span_of(text, colon < question ? colon : text);
    span rest = span_of(colon < question ? colon + 1 : text, question);
    if (is_text(scheme, "none")) {
        uri->kind = HR_STORE_NONE;
        if (rest.n != 0)
            status =
                hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: expected nothing after none:, found %s",
                             hr_quote(rest.at, rest.n).text);
    } else if (is_text(scheme, "lmdb")) {
        uri->kind = HR_STORE_LMDB;
        status = parse_lmdb(rest, uri, err);
    } else if (is_text(scheme, "redis") || is_text(scheme, "redis-cluster")) {
        uri->kind = is_text(scheme, "redis") ? HR_STORE_REDIS : HR_STORE_REDIS_CLUSTER;
        status = parse_redis(rest, uri, err);
    } else {
        const char *what = scheme.n > 0 ? scheme.at : text;
        size_t n = scheme.n > 0 ? scheme.n + 1 : 0;
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: expected %s, found %s", known_schemes,
                              n > 0 ? hr_quote(what, n).text : "no scheme");
    }
    if (status == HR_OK && question < end) status = parse_query(span_of(question + 1, end), uri, err);
    if (status == HR_OK && uri->kind == HR_STORE_LMDB && uri->layout != HR_LAYOUT_PACKED)
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "store URI: lmdb: expected layout packed, found %s",
                              layouts[uri->layout]);
    if (status == HR_OK) label_format(uri);
    return status;
}

const char *hr_entity__name(hr_entity entity) {
    return entity == HR_ENTITY_USER ? "user" : "item";
}
