/* A loopback proxy for tests, which can turn into a black hole: connections stay open and nothing passes. It
 * has a thread of its own; its functions belong to the test's. */
#ifndef HOMERANK_TESTS_FEATURES_TCP_PROXY_H
#define HOMERANK_TESTS_FEATURES_TCP_PROXY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { TCP_PROXY_MAX_PAIRS = 64 };

typedef struct tcp_proxy {
    uint16_t port; /* what clients connect to */
    uint16_t server_port;
    int listener;
    struct {
        int fds[2]; /* client and server */
        bool subscribes;
    } pairs[TCP_PROXY_MAX_PAIRS]; /* the thread's */
    int n_pairs;
    atomic_int holds;
    atomic_bool stops;
    pthread_t thread;
} tcp_proxy;

/* Forwards to 127.0.0.1:server_port. Fails the test where it cannot. */
void tcp_proxy_start(tcp_proxy *proxy, uint16_t server_port);

/* What to swallow. It is left unread, and forwarded afterwards; new connections are accepted and treated
 * alike. Subscribers are the connections of clients that have sent "SUBSCRIBE". In force within 1 ms. */
typedef enum tcp_proxy_holds {
    TCP_PROXY_NOTHING,
    TCP_PROXY_EVERYTHING,
    TCP_PROXY_SUBSCRIBERS,
    TCP_PROXY_ANSWERS /* what the server sends, but for subscribers */
} tcp_proxy_holds;
void tcp_proxy_hold(tcp_proxy *proxy, tcp_proxy_holds holds);

void tcp_proxy_stop(tcp_proxy *proxy); /* closes every connection */

#endif
