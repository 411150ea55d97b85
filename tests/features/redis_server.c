/* A real redis-server for tests: see redis_server.h. */
#include "tests/features/redis_server.h"

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

uint16_t redis_server_free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static redisContext *connect_to(const redis_server *server) {
    redisContext *c = redisConnectWithTimeout("127.0.0.1", server->port, (struct timeval){.tv_sec = 10});
    if (c == NULL || c->err != 0 || server->password[0] == '\0') return c;
    freeReplyObject(redisCommand(c, "AUTH %s", server->password));
    return c;
}

static int answers(const redis_server *server) {
    redisContext *c = connect_to(server);
    redisReply *reply = c != NULL && c->err == 0 ? redisCommand(c, "PING") : NULL;
    int ok = reply != NULL && reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    if (c != NULL) redisFree(c);
    return ok;
}

static void run(const redis_server *server) {
    char port[8];
    snprintf(port, sizeof port, "%u", server->port);
    const char *arguments[16 + REDIS_SERVER_OPTIONS] = {"redis-server",
                                                        "--port",
                                                        port,
                                                        "--bind",
                                                        "127.0.0.1",
                                                        "--save",
                                                        "",
                                                        "--dir",
                                                        "/tmp",
                                                        "--requirepass",
                                                        server->password,
                                                        "--enable-debug-command",
                                                        "yes"};
    size_t n = 13;
    for (size_t i = 0; server->options[i] != NULL; i++) arguments[n++] = server->options[i];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (freopen("/dev/null", "w", stdout) == NULL) _exit(1);
    execvp("redis-server", (char *const *)arguments);
    _exit(127);
}

/* 1 once it answers, 0 when it has ended (its port was taken, say). */
static int spawn(redis_server *server) {
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) run(server);
    while (!answers(server)) {
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid) {
            server->pid = 0;
            return 0;
        }
        usleep(2000); /* between looks at the condition waited for */
    }
    return 1;
}

static void start_anywhere(redis_server *server) {
    for (int attempt = 0; attempt < 10 && server->pid == 0; attempt++) {
        server->port = redis_server_free_port();
        spawn(server);
    }
    if (server->pid == 0) fail_msg("redis-server does not start");
    snprintf(server->uri, sizeof server->uri, "redis://127.0.0.1:%u/0", server->port);
}

void redis_server_start(redis_server *server, const char *password) {
    memset(server, 0, sizeof *server);
    snprintf(server->password, sizeof server->password, "%s", password);
    start_anywhere(server);
}

void redis_server_start_with(redis_server *server, const char *const *options) {
    memset(server, 0, sizeof *server);
    for (size_t i = 0; options[i] != NULL; i++) {
        assert_true(i + 1 < REDIS_SERVER_OPTIONS);
        server->options[i] = options[i];
    }
    start_anywhere(server);
}

void redis_server_start_without(redis_server *server, const char *command) {
    const char *const options[] = {"--rename-command", command, "", NULL};
    redis_server_start_with(server, options);
}

void redis_server_restart(redis_server *server) {
    redis_server_kill(server);
    if (!spawn(server)) fail_msg("redis-server does not start again on port %u", server->port);
}

void redis_server_kill(redis_server *server) {
    if (server->pid == 0) return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
}

void redis_server_signal(const redis_server *server, int signal) {
    assert_int_equal(kill(server->pid, signal), 0);
}

static redisReply *ask(const redis_server *server, const char *format, va_list args) {
    redisContext *c = connect_to(server);
    redisReply *reply = c != NULL && c->err == 0 ? redisvCommand(c, format, args) : NULL;
    if (c != NULL) redisFree(c);
    return reply;
}

redisReply *redis_server_ask(const redis_server *server, const char *format, ...) {
    va_list args;
    va_start(args, format);
    redisReply *reply = ask(server, format, args);
    va_end(args);
    return reply;
}

void redis_server_do(const redis_server *server, const char *format, ...) {
    va_list args;
    va_start(args, format);
    redisReply *reply = ask(server, format, args);
    va_end(args);
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR) fail_msg("%s: %s", format, reply->str);
    freeReplyObject(reply);
}

uint64_t redis_server_number(const redis_server *server, const char *name) {
    redisContext *c = connect_to(server);
    redisReply *reply = c == NULL ? NULL : redisCommand(c, "INFO everything");
    if (reply == NULL || reply->type != REDIS_REPLY_STRING) {
        fail_msg("INFO: no answer");
        return 0;
    }
    const char *at = strstr(reply->str, name);
    uint64_t number = at == NULL ? 0 : strtoull(at + strlen(name) + 1, NULL, 10);
    freeReplyObject(reply);
    redisFree(c);
    return number;
}
