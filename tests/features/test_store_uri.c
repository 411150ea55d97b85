/* Store URIs: every part is read and decoded, every mistake is named, no password is shown. And `none:`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "features/store.h"
#include "features/store_uri.h"

static hr_store_uri parse(const char *text) {
    hr_store_uri uri;
    hr_error err = {0};
    if (hr_store_uri_parse(text, &uri, &err) != HR_OK) fail_msg("%s: %s", text, err.message);
    return uri;
}

static void every_part_of_a_redis_uri_is_read(void **state) {
    (void)state;
    hr_store_uri u = parse("redis://u%40x:p%3Aw%2f@redis-1.example.org:7000/12?layout=hash&prefix=a%26b");
    assert_int_equal(u.kind, HR_STORE_REDIS);
    assert_string_equal(u.user, "u@x");
    assert_string_equal(u.password, "p:w/");
    assert_string_equal(u.servers[0].host, "redis-1.example.org");
    assert_int_equal(u.servers[0].port, 7000);
    assert_int_equal(u.db, 12);
    assert_int_equal(u.layout, HR_LAYOUT_HASH);
    assert_string_equal(u.prefix, "a&b");
    assert_string_equal(u.label, "redis://redis-1.example.org:7000/12?layout=hash&prefix=a%26b");
}

static void a_cluster_has_several_servers_and_ways_to_read(void **state) {
    (void)state;
    hr_store_uri u = parse("redis-cluster://u:p%2Cw@10.0.0.1:7000,[::1],node-3:7002?read=replica&hedge=on");
    assert_int_equal(u.kind, HR_STORE_REDIS_CLUSTER);
    assert_string_equal(u.password, "p,w");
    assert_int_equal(u.n_servers, 3);
    assert_string_equal(u.servers[0].host, "10.0.0.1");
    assert_int_equal(u.servers[0].port, 7000);
    assert_string_equal(u.servers[1].host, "::1");
    assert_int_equal(u.servers[1].port, 6379);
    assert_string_equal(u.servers[2].host, "node-3");
    assert_true(u.read_replicas);
    assert_true(u.hedge);
    assert_string_equal(u.label, "redis-cluster://10.0.0.1:7000,[::1]:6379,node-3:7002"
                                 "?layout=packed&read=replica&hedge=on&prefix=hr");
    u = parse("redis://h?item_type=int64&layout=feast&project=shop%21&user_view=a&item_view=b&item_key=id"
              "&max_age=3600&version=2");
    assert_int_equal(u.layout, HR_LAYOUT_FEAST);
    assert_string_equal(u.feast.project, "shop!");
    assert_int_equal(u.feast.version, 2);
    assert_int_equal(u.feast.max_age_s, 3600);
    assert_string_equal(u.feast.entities[HR_ENTITY_USER].view, "a");
    assert_string_equal(u.feast.entities[HR_ENTITY_USER].join_key, "user_id");
    assert_int_equal(u.feast.entities[HR_ENTITY_USER].id_type, HR_FEAST_STRING);
    assert_string_equal(u.feast.entities[HR_ENTITY_ITEM].join_key, "id");
    assert_int_equal(u.feast.entities[HR_ENTITY_ITEM].id_type, HR_FEAST_INT64);
    assert_string_equal(u.label, "redis://h:6379/0?layout=feast&project=shop%21");
    u = parse("redis-cluster://h?layout=hash&read=master&hedge=off");
    assert_false(u.read_replicas);
    assert_false(u.hedge);
    assert_string_equal(u.label, "redis-cluster://h:6379?layout=hash&prefix=hr");
}

static void what_a_uri_leaves_out_has_defaults(void **state) {
    (void)state;
    hr_store_uri u = parse("redis://h");
    assert_int_equal(u.servers[0].port, 6379);
    assert_int_equal(u.db, 0);
    assert_string_equal(u.user, "");
    assert_string_equal(u.password, "");
    assert_string_equal(u.prefix, "hr");
    assert_int_equal(u.layout, HR_LAYOUT_PACKED);
    assert_string_equal(parse("redis://h:1/").servers[0].host, "h");
}

static void ipv6_hosts_stand_in_brackets(void **state) {
    (void)state;
    hr_store_uri u = parse("redis://:pw@[::1]:7001/3");
    assert_string_equal(u.servers[0].host, "::1");
    assert_int_equal(u.servers[0].port, 7001);
    assert_string_equal(u.password, "pw");
    assert_string_equal(u.label, "redis://[::1]:7001/3?layout=packed&prefix=hr");
    assert_int_equal(parse("redis://[fe80::2]").servers[0].port, 6379);
}

static void the_password_may_come_from_the_environment(void **state) {
    (void)state;
    setenv("HOMERANK_REDIS_PASSWORD", "from-env", 1);
    assert_string_equal(parse("redis://h:1").password, "from-env");
    assert_string_equal(parse("redis://ranker@h:1").password, "from-env");
    assert_string_equal(parse("redis://:own@h:1").password, "own");
    unsetenv("HOMERANK_REDIS_PASSWORD");
    assert_string_equal(parse("redis://h:1").password, "");
}

static void lmdb_and_none_are_read(void **state) {
    (void)state;
    hr_store_uri u = parse("lmdb:/var/lib/a%20b?prefix=x");
    assert_int_equal(u.kind, HR_STORE_LMDB);
    assert_string_equal(u.path, "/var/lib/a b");
    assert_string_equal(u.prefix, "x");
    assert_string_equal(u.label, "lmdb:/var/lib/a%20b?layout=packed&prefix=x");
    assert_int_equal(parse("none:").kind, HR_STORE_NONE);
    assert_string_equal(parse("none:").label, "none:");
}

static void every_mistake_is_named(void **state) {
    (void)state;
    static char long_prefix[128] = "lmdb:p?prefix=";
    memset(long_prefix + strlen(long_prefix), 'x', 65);
    const struct {
        const char *uri, *said;
    } cases[] = {
        {"", "no scheme"},
        {"store", "no scheme"},
        {"/data/records", "no scheme"},
        {"mysql://h", "\"mysql:\""},
        {"redis-clusters://h:1", "\"redis-clusters:\""},
        {"redis-cluster:h", "redis-cluster://"},
        {"redis-cluster://h:1,", "HOST:PORT"},
        {"redis-cluster://,h:1", "HOST:PORT"},
        {"redis-cluster://h:1,h:x", "\"x\""},
        {"redis-cluster://h:1/0", "database"},
        {"redis-cluster://a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "at most 16"},
        {"redis-cluster://h:1?read=slave", "\"slave\""},
        {"redis-cluster://h:1?hedge=yes", "\"yes\""},
        {"redis-cluster://h:1?read=master&read=master", "twice"},
        {"redis://h:1?read=replica", "\"read\""},
        {"redis://h:1,h:2", "port"},
        {"redis:h", "redis://"},
        {"redis://", "HOST:PORT"},
        {"redis://:6379", "HOST:PORT"},
        {"redis://h:", "port"},
        {"redis://h:0", "port"},
        {"redis://h:65536", "\"65536\""},
        {"redis://h:12x", "port"},
        {"redis://h:-1", "port"},
        {"redis://h h:1", "HOST:PORT"},
        {"redis://[::1:6379", "']'"},
        {"redis://[::1]6379", "HOST:PORT"},
        {"redis://h:1/x", "database"},
        {"redis://h:1/0/1", "database"},
        {"redis://h:1/-1", "database"},
        {"redis://h:1/99999999999", "database"},
        {"redis://user@h:1", "HOMERANK_REDIS_PASSWORD"},
        {"redis://:p%4@h:1", "hex"},
        {"redis://:p%zz@h:1", "hex"},
        {"redis://:p%00@h:1", "NUL"},
        {"redis://h:1?layout=row", "\"row\""},
        {"redis://h:1?layout=feast", "no project"},
        {"redis://h:1?layout=feast&project=p&item_view=i", "no user_view"},
        {"redis://h:1?layout=feast&project=p&user_view=u", "no item_view"},
        {"redis://h:1?layout=feast&project=&user_view=u&item_view=i", "project: expected a text"},
        {"redis://h:1?layout=feast&project=p&user_view=u&item_view=i&prefix=hr",
         "prefix: layout feast has none"},
        {"redis://h:1?layout=feast&project=p&user_view=u&item_view=i&version=1", "from 2 to 3"},
        {"redis://h:1?layout=feast&project=p&user_view=u&item_view=i&version=4", "from 2 to 3"},
        {"redis://h:1?layout=feast&project=p&user_view=u&item_view=i&max_age=0", "max_age"},
        {"redis://h:1?layout=feast&project=p&user_view=u&item_view=i&item_type=int",
         "string, int64 or int32"},
        {"redis://h:1?layout=hash&project=p", "project: layout hash has none"},
        {"redis://h:1?item_type=int64", "item_type: layout packed has none"},
        {"lmdb:p?layout=feast&project=p&user_view=u&item_view=i", "found feast"},
        {"redis://h:1?ttl=3", "\"ttl\""},
        {"redis://h:1?prefix", "NAME=VALUE"},
        {"redis://h:1?prefix=a&prefix=b", "twice"},
        {"redis://h:1?prefix=", "prefix"},
        {"lmdb:", "path"},
        {"lmdb:p?layout=hash", "packed"},
        {"none:x", "\"x\""},
        {long_prefix, "at most 64"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hr_store_uri uri;
        hr_error err = {0};
        if (hr_store_uri_parse(cases[i].uri, &uri, &err) != HR_INVALID_ARGUMENT)
            fail_msg("%s passes", cases[i].uri);
        if (strstr(err.message, cases[i].said) == NULL) fail_msg("%s: %s", cases[i].uri, err.message);
    }
}

static void no_message_shows_a_password(void **state) {
    (void)state;
    static const char *const uris[] = {
        "redis://u:se/cret@h:1",  "redis-cluster://u:secret@h:1/2", "redis://u:se?cret@h:1",
        "redis://u:se%cret@h:1",  "redis://u:secret@h:x",           "redis://u:secret@",
        "redis://u:secret@h:1/x", "redis://u:secret@h:1?x=1",
    };
    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        hr_store_uri uri;
        hr_error err = {0};
        assert_int_equal(hr_store_uri_parse(uris[i], &uri, &err), HR_INVALID_ARGUMENT);
        if (strstr(err.message, "cret") != NULL) fail_msg("%s", err.message);
    }
    assert_null(strstr(parse("redis://u:secret@h:1").label, "secret"));
}

static void none_has_no_records_and_no_error(void **state) {
    (void)state;
    hr_store *store;
    hr_error err = {0};
    assert_int_equal(hr_store_open("none:", &hr_store_defaults, &store, &err), HR_OK);
    assert_true(hr_store_is_synchronous(store));
    assert_string_equal(hr_store_label(store), "none:");
    hr_arena *arena = hr_arena_create(1 << 20);
    const char *const items[] = {"a", "b"};
    hr_fetch fetch = {.user_id = "u", .item_ids = items, .n_items = 2, .deadline_ns = 0, .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_OK);
    assert_int_equal(fetch.user.kind, HR_RECORD_MISSING);
    assert_int_equal(fetch.items[1].kind, HR_RECORD_MISSING);
    hr_store_close(store);
    hr_store_close(NULL);
    hr_arena_destroy(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_of_a_redis_uri_is_read),
        cmocka_unit_test(a_cluster_has_several_servers_and_ways_to_read),
        cmocka_unit_test(what_a_uri_leaves_out_has_defaults),
        cmocka_unit_test(ipv6_hosts_stand_in_brackets),
        cmocka_unit_test(the_password_may_come_from_the_environment),
        cmocka_unit_test(lmdb_and_none_are_read),
        cmocka_unit_test(every_mistake_is_named),
        cmocka_unit_test(no_message_shows_a_password),
        cmocka_unit_test(none_has_no_records_and_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
