/* A loopback proxy for tests: see tcp_proxy.h. */
#include "tests/features/tcp_proxy.h"

#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void take_client(tcp_proxy *proxy) {
    int client = accept(proxy->listener, NULL, NULL);
    if (client < 0) return;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(proxy->server_port);
    if (proxy->n_pairs == TCP_PROXY_MAX_PAIRS ||
        connect(server, (struct sockaddr *)&address, sizeof address) != 0) {
        close(server);
        close(client);
        return;
    }
    proxy->pairs[proxy->n_pairs][0] = client;
    proxy->pairs[proxy->n_pairs++][1] = server;
}

/* Hands on what has come; false at the end of either side. */
static bool forward(int from, int to) {
    char bytes[65536];
    ssize_t n = recv(from, bytes, sizeof bytes, MSG_DONTWAIT);
    return n > 0 && send(to, bytes, (size_t)n, MSG_NOSIGNAL) == n;
}

static void close_pair(tcp_proxy *proxy, int i) {
    close(proxy->pairs[i][0]);
    close(proxy->pairs[i][1]);
    memmove(proxy->pairs[i], proxy->pairs[i + 1], (size_t)(--proxy->n_pairs - i) * sizeof proxy->pairs[0]);
}

static void *run(void *arg) {
    tcp_proxy *proxy = arg;
    while (!atomic_load(&proxy->stops)) {
        struct pollfd fds[1 + 2 * TCP_PROXY_MAX_PAIRS] = {{.fd = proxy->listener, .events = POLLIN}};
        const int n_pairs = proxy->n_pairs;
        const bool holds = atomic_load(&proxy->holds);
        for (int i = 0; i < 2 * n_pairs; i++)
            fds[1 + i] = (struct pollfd){.fd = holds ? -1 : proxy->pairs[i / 2][i % 2], .events = POLLIN};
        poll(fds, (nfds_t)(1 + 2 * n_pairs), 1);
        if (fds[0].revents != 0) take_client(proxy);
        for (int i = n_pairs - 1; i >= 0; i--) {
            bool open = true;
            if (fds[1 + 2 * i].revents != 0) open = forward(proxy->pairs[i][0], proxy->pairs[i][1]);
            if (open && fds[2 + 2 * i].revents != 0) open = forward(proxy->pairs[i][1], proxy->pairs[i][0]);
            if (!open) close_pair(proxy, i);
        }
    }
    while (proxy->n_pairs > 0) close_pair(proxy, proxy->n_pairs - 1);
    return NULL;
}

void tcp_proxy_start(tcp_proxy *proxy, uint16_t server_port) {
    memset(proxy, 0, sizeof *proxy);
    struct sockaddr_in address = loopback(0);
    socklen_t n = sizeof address;
    proxy->server_port = server_port;
    proxy->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(proxy->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(proxy->listener, TCP_PROXY_MAX_PAIRS), 0);
    assert_int_equal(getsockname(proxy->listener, (struct sockaddr *)&address, &n), 0);
    proxy->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&proxy->thread, NULL, run, proxy), 0);
}

void tcp_proxy_hold(tcp_proxy *proxy, bool holds) {
    atomic_store(&proxy->holds, holds);
}

void tcp_proxy_stop(tcp_proxy *proxy) {
    atomic_store(&proxy->stops, true);
    pthread_join(proxy->thread, NULL);
    close(proxy->listener);
}
