/* The blocking client against a running server. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "service/client.h"
#include "tests/service/server_fixture.h"

static hr_client *connect_to(uint16_t port) {
    char target[32];
    snprintf(target, sizeof target, "127.0.0.1:%u", port);
    hr_client *client = NULL;
    hr_error err;
    assert_int_equal(hr_client_create(target, &client, &err), HR_OK);
    return client;
}

static void a_call_returns_the_ranking(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    hr_client *client = connect_to(hr_server_port(f->server));
    hr_arena *arena = hr_arena_create(1 << 20);
    Homerank__V1__RankResponse *answer = NULL;
    hr_error err;
    assert_int_equal(hr_client_rank(client, fixture_request(arena, "r-1", 9), 0, arena, &answer, &err),
                     HR_OK);
    assert_string_equal(answer->request_id, "r-1");
    assert_string_equal(answer->model, "home1@1");
    assert_int_equal(answer->n_item_ids, 9);
    hr_arena_destroy(arena);
    hr_client_destroy(client);
}

static void the_servers_error_comes_with_its_text(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    hr_client *client = connect_to(hr_server_port(f->server));
    hr_arena *arena = hr_arena_create(1 << 20);
    Homerank__V1__RankRequest *request = fixture_request(arena, "r-1", 2);
    request->model = (char *)"n\xc3\xb6-one";
    Homerank__V1__RankResponse *answer = NULL;
    hr_error err;
    assert_int_equal(hr_client_rank(client, request, 0, arena, &answer, &err), HR_NOT_FOUND);
    assert_non_null(strstr(err.message, "-one"));
    hr_arena_destroy(arena);
    hr_client_destroy(client);
}

static void a_server_that_is_not_there_is_unavailable(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    hr_client *client = connect_to(hr_server_port(f->server));
    fixture_stop(f);
    hr_arena *arena = hr_arena_create(1 << 20);
    Homerank__V1__RankResponse *answer = NULL;
    hr_error err;
    assert_int_equal(hr_client_rank(client, fixture_request(arena, "r-1", 2), 0, arena, &answer, &err),
                     HR_UNAVAILABLE);
    assert_true(err.message[0] != '\0');
    hr_arena_destroy(arena);
    hr_client_destroy(client);
}

/* A listener that takes connections and says nothing; its port. */
static uint16_t listen_silently(int *fd) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(*fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(*fd, 1), 0);
    assert_int_equal(getsockname(*fd, (struct sockaddr *)&address, &size), 0);
    return ntohs(address.sin_port);
}

static void a_timeout_is_deadline_exceeded(void **state) {
    (void)state;
    int fd;
    hr_client *client = connect_to(listen_silently(&fd));
    hr_arena *arena = hr_arena_create(1 << 20);
    Homerank__V1__RankResponse *answer = NULL;
    hr_error err;
    assert_int_equal(hr_client_rank(client, fixture_request(arena, "r-1", 2), 100, arena, &answer, &err),
                     HR_DEADLINE_EXCEEDED);
    hr_arena_destroy(arena);
    hr_client_destroy(client);
    close(fd);
}

static void a_target_that_is_no_address_is_refused(void **state) {
    (void)state;
    hr_client *client = NULL;
    hr_error err;
    assert_int_equal(hr_client_create("localhost", &client, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "target \"localhost\": expected HOST:PORT (an IPv6 host in brackets)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_call_returns_the_ranking),
        FIXTURE_TEST(the_servers_error_comes_with_its_text),
        FIXTURE_TEST(a_server_that_is_not_there_is_unavailable),
        FIXTURE_TEST(a_timeout_is_deadline_exceeded),
        FIXTURE_TEST(a_target_that_is_no_address_is_refused),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
