/* Redis Cluster's rules: slots as Redis computes them, maps as it tells them, and redirections; what it would
 * never tell is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "features/redis_slots.h"

/* By `CLUSTER KEYSLOT` of redis-server 7.0.15. */
static void keys_are_in_the_slots_that_redis_puts_them_in(void **state) {
    (void)state;
    static const struct {
        const char *key;
        uint16_t slot;
    } cases[] = {
        {"", 0},
        {"123456789", 12739},
        {"foo", 12182},
        {"hr:item:42", 10064},
        {"hr:user:caf\xc3\xa9", 1729},
        {"{user1000}.following", 3443},
        {"user1000", 3443},
        {"foo{}{bar}", 8363},
        {"foo{{bar}}zap", 4015},
        {"{bar", 4015},
        {"foo{bar}{zap}", 5061},
        {"bar", 5061},
        {"foo{", 7673},
        {"foo}bar{x}", 16287},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *key = cases[i].key;
        size_t n = strlen(key);
        for (size_t head = 0; head <= n; head++) { /* however it is cut in two */
            uint16_t slot = hr_redis_key_slot(key, head, key + head, n - head);
            if (slot != cases[i].slot) fail_msg("%s cut at %zu: slot %u", key, head, slot);
        }
    }
}

/* --- maps ----------------------------------------------------------------------------------------------- */

typedef struct parsed {
    hr_arena *arena;
    hr_redis_map map;
    hr_error err;
    hr_status status;
} parsed;

static bool on_array(void *context, hr_redis_place place, size_t n) {
    return hr_redis_tree_array(context, place, n);
}
static bool on_text(void *context, hr_redis_place place, const hr_redis_piece *piece) {
    return hr_redis_tree_text(context, place, piece);
}
static bool on_line(void *context, hr_redis_place place, bool is_error, const char *text, size_t nbytes) {
    return hr_redis_tree_line(context, place, is_error, text, nbytes);
}
static bool on_integer(void *context, hr_redis_place place, int64_t value) {
    hr_redis_tree_integer(context, place, value);
    return true;
}
static bool on_nil(void *context, hr_redis_place place) {
    (void)context;
    (void)place;
    return true;
}
static bool on_end(void *context) {
    (void)context;
    return true;
}
static const hr_redis_reader_i tree_i = {on_array, on_text, on_line, on_integer, on_nil, on_end};

/* A reply in a notation of its own: [ ] an array, 'text', a number, ~ nil. */
static void write_reply(const char *notation, char *reply, size_t size) {
    size_t n = 0;
    for (const char *at = notation; *at != '\0';) {
        if (*at == '[') {
            size_t depth = 0, n_elements = 0;
            bool between = true;
            for (const char *c = at + 1; depth > 0 || *c != ']'; c++) {
                if (depth == 0 && between && *c != ' ') n_elements++;
                between = *c == ' ';
                depth += *c == '[';
                depth -= *c == ']';
            }
            n += (size_t)snprintf(reply + n, size - n, "*%zu\r\n", n_elements);
            at++;
        } else if (*at == '\'') {
            const char *end = strchr(at + 1, '\'');
            n += (size_t)snprintf(reply + n, size - n, "$%d\r\n%.*s\r\n", (int)(end - at - 1),
                                  (int)(end - at - 1), at + 1);
            at = end + 1;
        } else if (*at == '~') {
            n += (size_t)snprintf(reply + n, size - n, "$-1\r\n");
            at++;
        } else if (*at == ' ' || *at == ']') {
            at++;
        } else {
            char *end;
            n += (size_t)snprintf(reply + n, size - n, ":%ld\r\n", strtol(at, &end, 10));
            at = end;
        }
        assert_true(n < size);
    }
}

static parsed parse(const char *notation, bool slots) {
    static char reply[1 << 20];
    parsed p = {.arena = hr_arena_create(8 << 20)};
    hr_redis_tree tree;
    hr_redis_reader reader;
    write_reply(notation, reply, sizeof reply);
    hr_redis_tree_begin(&tree, p.arena);
    hr_redis_reader_init(&reader, &tree_i, &tree);
    assert_int_equal(hr_redis_reader_feed(&reader, reply, strlen(reply)), HR_REDIS_READ_ALL);
    p.status = (slots ? hr_redis_map_read_slots : hr_redis_map_read_shards)(&tree.root, "asked", p.arena,
                                                                            &p.map, &p.err);
    return p;
}

static void expect_node(const parsed *p, size_t shard, size_t node, const char *host, unsigned port) {
    assert_true(node < p->map.shards[shard].n_nodes);
    assert_string_equal(p->map.shards[shard].nodes[node].host, host);
    assert_int_equal(p->map.shards[shard].nodes[node].port, port);
}

#define NODE(port, host, role, health)                                                                       \
    "['id' 'x' 'port' " port " 'ip' '1.1.1.1' 'endpoint' " host " 'role' '" role                             \
    "' 'replication-offset' 7 'health' '" health "']"

static void shards_are_read_with_their_masters_first(void **state) {
    (void)state;
    parsed p = parse(
        "[['slots' [0 99 200 299] 'nodes' [" NODE("7003", "'10.0.0.2'", "replica", "online") " " NODE(
            "7000", "'10.0.0.1'", "master",
            "online") " " NODE("7009", "'h'", "replica",
                               "loading") "]]"
                                          " ['slots' [100 199] 'nodes' [" NODE("7001", "'10.0.0.3'", "master", "fail") " " NODE(
                                              "7002", "'10.0.0.4'", "master",
                                              "online") "]]"
                                                        " ['slots' [] 'nodes' [" NODE(
                                                            "7004", "'10.0.0.5'", "master",
                                                            "online") "]]"
                                                                      " ['slots' [300 16383] 'nodes' "
                                                                      "[" NODE("7005", "~", "master", "online") " " NODE(
                                                                          "7006", "'?'", "replica",
                                                                          "online") " " NODE("7007", "''",
                                                                                             "replica",
                                                                                             "online") "]"
                                                                                                       "]"
                                                                                                       "]",
        false);
    assert_string_equal(p.err.message, "");
    assert_int_equal(p.map.n_shards, 3);
    assert_int_equal(p.map.shards[0].n_nodes, 2);
    expect_node(&p, 0, 0, "10.0.0.1", 7000);
    expect_node(&p, 0, 1, "10.0.0.2", 7003);
    assert_int_equal(p.map.shards[1].n_nodes, 1);
    expect_node(&p, 1, 0, "10.0.0.4", 7002);
    expect_node(&p, 2, 0, "asked", 7005);
    expect_node(&p, 2, 1, "asked", 7006);
    expect_node(&p, 2, 2, "asked", 7007);
    assert_int_equal(p.map.shard_of[0], 0);
    assert_int_equal(p.map.shard_of[99], 0);
    assert_int_equal(p.map.shard_of[100], 1);
    assert_int_equal(p.map.shard_of[299], 0);
    assert_int_equal(p.map.shard_of[300], 2);
    assert_int_equal(p.map.shard_of[16383], 2);
    hr_arena_destroy(p.arena);
}

static void ranges_of_slots_are_read_too(void **state) {
    (void)state;
    parsed p = parse("[[0 99 ['10.0.0.1' 7000 'id' []] ['10.0.0.2' 7003 'id']]"
                     " [100 199 ['' 7001]] [300 301 ['10.0.0.1' 7000]] [400 400 ['tls.only' 0]]]",
                     true);
    assert_string_equal(p.err.message, "");
    assert_int_equal(p.map.n_shards, 2);
    assert_int_equal(p.map.shards[0].n_nodes, 2);
    expect_node(&p, 0, 0, "10.0.0.1", 7000);
    expect_node(&p, 0, 1, "10.0.0.2", 7003);
    expect_node(&p, 1, 0, "asked", 7001);
    assert_int_equal(p.map.shard_of[99], 0);
    assert_int_equal(p.map.shard_of[100], 1);
    assert_int_equal(p.map.shard_of[200], HR_REDIS_NO_SHARD);
    assert_int_equal(p.map.shard_of[301], 0);
    assert_int_equal(p.map.shard_of[400], HR_REDIS_NO_SHARD);
    hr_arena_destroy(p.arena);
}

static void a_cluster_of_no_slots_has_no_shards(void **state) {
    (void)state;
    for (int slots = 0; slots < 2; slots++) {
        parsed p = parse("[]", slots);
        assert_int_equal(p.status, HR_OK);
        assert_int_equal(p.map.n_shards, 0);
        assert_int_equal(p.map.shard_of[0], HR_REDIS_NO_SHARD);
        hr_arena_destroy(p.arena);
    }
}

static void maps_of_another_shape_are_refused(void **state) {
    (void)state;
    static const struct {
        bool slots;
        const char *notation, *said;
    } cases[] = {
        {false, "7", "expected an array of shards, found an integer"},
        {false, "['x']", "expected a shard, found a text"},
        {false, "[['nodes' []]]", "ranges of slots"},
        {false, "[['slots' [0 1 2] 'nodes' []]]", "ranges of slots"},
        {false, "[['slots' [0 1]]]", "a shard's nodes"},
        {false, "[['slots' [0 1] 'nodes' ['x']]]", "expected a node"},
        {false, "[['slots' [0 1] 'nodes' [['port' 1]]]]", "endpoint, role and health"},
        {false, "[['slots' [1 0] 'nodes' [" NODE("1", "'h'", "master", "online") "]]]", "range of slots"},
        {false, "[['slots' [-1 0] 'nodes' [" NODE("1", "'h'", "master", "online") "]]]", "range of slots"},
        {false, "[['slots' [0 16384] 'nodes' [" NODE("1", "'h'", "master", "online") "]]]", "range of slots"},
        {false, "[['slots' [0 'x'] 'nodes' [" NODE("1", "'h'", "master", "online") "]]]", "range of slots"},
        {false, "[['slots' [0 5 5 6] 'nodes' [" NODE("1", "'h'", "master", "online") "]]]", "slot 5"},
        {false, "[['slots' [0 1] 'nodes' [" NODE("65536", "'h'", "master", "online") "]]]", "port"},
        {false, "[['slots' [0 1] 'nodes' [" NODE("'x'", "'h'", "master", "online") "]]]", "port"},
        {false, "[['slots' [0 1] 'nodes' [" NODE("1", "'h h'", "master", "online") "]]]", "\"h h\""},
        {false, "[['slots' [0 1] 'nodes' [" NODE("1", "7", "master", "online") "]]]", "a host"},
        {true, "'x'", "an array of shards"},
        {true, "[7]", "a range of slots and its nodes"},
        {true, "[[0 1]]", "a range of slots and its nodes"},
        {true, "[[0 1 'x']]", "a node's host and port"},
        {true, "[[0 1 ['h']]]", "a node's host and port"},
        {true, "[[0 1 ['h' 1] ['h' 'x']]]", "port"},
        {true, "[[0 1 ['h' 1]] [1 2 ['g' 1]]]", "slot 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        parsed p = parse(cases[i].notation, cases[i].slots);
        if (p.status != HR_INVALID_ARGUMENT) fail_msg("%s passes", cases[i].notation);
        if (strstr(p.err.message, cases[i].said) == NULL)
            fail_msg("%s: %s", cases[i].notation, p.err.message);
        hr_arena_destroy(p.arena);
    }
}

static void more_shards_than_there_may_be_are_refused(void **state) {
    (void)state;
    static char notation[256 << 10];
    size_t n = 0;
    notation[n++] = '[';
    for (int i = 0; i <= HR_REDIS_MAX_SHARDS; i++)
        n += (size_t)snprintf(notation + n, sizeof notation - n, "[%d %d ['h' %d]] ", i, i, i + 1);
    strcpy(notation + n, "]");
    parsed p = parse(notation, true);
    assert_int_equal(p.status, HR_INVALID_ARGUMENT);
    assert_non_null(strstr(p.err.message, "at most 1024 shards"));
    hr_arena_destroy(p.arena);
}

/* --- refusals ------------------------------------------------------------------------------------------- */

static void errors_of_a_cluster_are_told_apart(void **state) {
    (void)state;
    static const struct {
        const char *text;
        hr_redis_refusal_kind kind;
        unsigned slot;
        const char *host;
        unsigned port;
    } cases[] = {
        {"MOVED 3999 127.0.0.1:6381", HR_REDIS_MOVED, 3999, "127.0.0.1", 6381},
        {"MOVED 0 :6381", HR_REDIS_MOVED, 0, "asked", 6381},
        {"MOVED 0 ?:6381", HR_REDIS_MOVED, 0, "asked", 6381},
        {"ASK 16383 node-3.example:65535", HR_REDIS_ASK, 16383, "node-3.example", 65535},
        {"ASK 7 fe80::1%eth0:7001", HR_REDIS_ASK, 7, "fe80::1%eth0", 7001},
        {"TRYAGAIN Multiple keys request during rehashing of slot", HR_REDIS_TRY_AGAIN, 0, "", 0},
        {"CLUSTERDOWN The cluster is down", HR_REDIS_CLUSTER_DOWN, 0, "", 0},
        {"LOADING Redis is loading the dataset in memory", HR_REDIS_CANNOT_SERVE, 0, "", 0},
        {"MASTERDOWN Link with MASTER is down", HR_REDIS_CANNOT_SERVE, 0, "", 0},
        {"WRONGTYPE Operation against a key", HR_REDIS_WRONG_TYPE, 0, "", 0},
        {"ERR unknown", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED 16384 h:1", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED 99999999999999999999 h:1", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED -1 h:1", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED 1 h", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED 1 h:0", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED 1 h:65536", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED 1 h:1x", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"MOVED 1 h/h:1", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
        {"ASK 1 ", HR_REDIS_OTHER_REFUSAL, 0, "", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const hr_redis_refusal r = hr_redis_refusal_read(cases[i].text, "asked");
        if (r.kind != cases[i].kind) fail_msg("%s: %d", cases[i].text, r.kind);
        if (r.kind > HR_REDIS_ASK) continue;
        assert_int_equal(r.slot, cases[i].slot);
        assert_string_equal(r.address.host, cases[i].host);
        assert_int_equal(r.address.port, cases[i].port);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_in_the_slots_that_redis_puts_them_in),
        cmocka_unit_test(shards_are_read_with_their_masters_first),
        cmocka_unit_test(ranges_of_slots_are_read_too),
        cmocka_unit_test(a_cluster_of_no_slots_has_no_shards),
        cmocka_unit_test(maps_of_another_shape_are_refused),
        cmocka_unit_test(more_shards_than_there_may_be_are_refused),
        cmocka_unit_test(errors_of_a_cluster_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
