/* A real redis-server for tests, on a free loopback port, keeping nothing on disk. One thread at a time. */
#ifndef HOMERANK_TESTS_FEATURES_REDIS_SERVER_H
#define HOMERANK_TESTS_FEATURES_REDIS_SERVER_H

#include <stdint.h>
#include <sys/types.h>

struct redisReply; /* hiredis' */

enum { REDIS_SERVER_OPTIONS = 24 };

typedef struct redis_server {
    uint16_t port;
    pid_t pid; /* 0: not running */
    char password[32];
    char uri[128];                             /* redis://127.0.0.1:PORT/0, without the password */
    const char *options[REDIS_SERVER_OPTIONS]; /* further arguments; NULL ends them; borrowed */
} redis_server;

/* Starts it and waits until it answers. password: "" for none. Fails the test where it cannot. */
void redis_server_start(redis_server *server, const char *password);

/* The same without a password, of a server that does not know the command. */
void redis_server_start_without(redis_server *server, const char *command);

/* The same without a password, with further arguments ("--maxmemory", "1mb", ..., NULL); borrowed. */
void redis_server_start_with(redis_server *server, const char *const *options);

/* A loopback port that nobody listens on just now. */
uint16_t redis_server_free_port(void);

/* Starts it again, empty, on the same port. */
void redis_server_restart(redis_server *server);

void redis_server_kill(redis_server *server); /* SIGKILL, waits for its end; may be called again */
void redis_server_signal(const redis_server *server, int signal);

/* Runs one command (words separated by blanks, or, with a payload, %b as in hiredis) and fails the test on an
 * error. */
void redis_server_do(const redis_server *server, const char *format, ...);

/* The same, and its reply, for freeReplyObject; NULL where the server does not answer. */
struct redisReply *redis_server_ask(const redis_server *server, const char *format, ...);

/* A number that INFO tells ("keyspace_hits"); 0 where it tells no such one. */
uint64_t redis_server_number(const redis_server *server, const char *name);

#endif
