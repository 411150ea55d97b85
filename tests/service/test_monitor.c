/* What /readyz and /metrics say while a model's device has failed. The failure is pretended, for no test can
 * make a GPU fail: the linker has hr_engine_is_degraded call this file's. */
#include "service/monitor.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/backend.h"
#include "tests/service/server_fixture.h"

static bool is_degraded;

bool __wrap_hr_engine_is_degraded(const hr_engine *engine);
bool __wrap_hr_engine_is_degraded(const hr_engine *engine) {
    assert_non_null(engine);
    return is_degraded;
}

/* The whole answer to GET path, to free(). */
static char *get(const hr_monitor *monitor, const char *path) {
    enum { MOST = 1 << 20 };
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(hr_monitor_port(monitor)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char *answer = calloc(1, MOST + 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    dprintf(fd, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    size_t nbytes = 0;
    for (ssize_t n; (n = read(fd, answer + nbytes, MOST - nbytes)) > 0;) nbytes += (size_t)n;
    close(fd);
    return answer;
}

static void expect(const hr_monitor *monitor, const char *path, const char *status, const char *part) {
    char *answer = get(monitor, path);
    if (strncmp(answer, "HTTP/1.1 ", 9) != 0 || strncmp(answer + 9, status, 3) != 0 ||
        strstr(answer, part) == NULL)
        fail_msg("%s: expected %s and %s, found %s", path, status, part, answer);
    free(answer);
}

static void a_failed_device_is_said_and_leaves_the_server_ready(void **state) {
    fixture *f = *state;
    hr_error err;
    hr_monitor *monitor;
    fixture_serve(f, NULL);
    if (hr_monitor_start("127.0.0.1:0", "0", &monitor, &err) != HR_OK) fail_msg("%s", err.message);
    expect(monitor, "/readyz", "503", "\r\n\r\nthe server is starting\n");
    assert_int_equal(hr_monitor_serving(monitor, f->repository, f->pipeline, f->server, &err), HR_OK);
    expect(monitor, "/readyz", "200", "\r\n\r\nready\n");
    expect(monitor, "/metrics", "200", "\nhomerank_model_degraded{model=\"home1\",version=\"1\"} 0\n");
    is_degraded = true;
    expect(monitor, "/readyz", "200",
           "\r\n\r\nready\ndegraded: home1@1 is computed by the CPU, its device failed\n");
    expect(monitor, "/metrics", "200", "\nhomerank_model_degraded{model=\"home1\",version=\"1\"} 1\n");
    is_degraded = false;
    expect(monitor, "/readyz", "200", "\r\n\r\nready\n");
    hr_monitor_stopping(monitor);
    expect(monitor, "/readyz", "503", "\r\n\r\nthe server is shutting down\n");
    hr_monitor_destroy(monitor);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_failed_device_is_said_and_leaves_the_server_ready),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
