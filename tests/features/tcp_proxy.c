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
    proxy->pairs[proxy->n_pairs].subscribes = false;
    proxy->pairs[proxy->n_pairs].fds[0] = client;
    proxy->pairs[proxy->n_pairs++].fds[1] = server;
}

/* Hands on what side `from` has sent; false at its end. */
static bool forward(tcp_proxy *proxy, int i, int from) {
    char bytes[65536];
    ssize_t n = recv(proxy->pairs[i].fds[from], bytes, sizeof bytes, MSG_DONTWAIT);
    if (n <= 0) return false;
    if (from == 0 && memmem(bytes, (size_t)n, "SUBSCRIBE", 9) != NULL) proxy->pairs[i].subscribes = true;
    return send(proxy->pairs[i].fds[!from], bytes, (size_t)n, MSG_NOSIGNAL) == n;
}

static void close_pair(tcp_proxy *proxy, int i) {
    for (int side = 0; side < 2; side++) close(proxy->pairs[i].fds[side]);
    memmove(&proxy->pairs[i], &proxy->pairs[i + 1], (size_t)(--proxy->n_pairs - i) * sizeof proxy->pairs[0]);
}

static bool is_held(const tcp_proxy *proxy, int i, int side) {
    switch ((tcp_proxy_holds)atomic_load(&proxy->holds)) {
    case TCP_PROXY_NOTHING: break;
    case TCP_PROXY_EVERYTHING: return true;
    case TCP_PROXY_SUBSCRIBERS: return proxy->pairs[i].subscribes;
    case TCP_PROXY_ANSWERS: return side == 1 && !proxy->pairs[i].subscribes;
    }
    return false;
}

static void *run(void *arg) {
    tcp_proxy *proxy = arg;
    while (!atomic_load(&proxy->stops)) {
        struct pollfd fds[1 + 2 * TCP_PROXY_MAX_PAIRS] = {{.fd = proxy->listener, .events = POLLIN}};
        const int n_pairs = proxy->n_pairs;
        for (int i = 0; i < 2 * n_pairs; i++) {
            const int fd = proxy->pairs[i / 2].fds[i % 2];
            fds[1 + i] = (struct pollfd){.fd = is_held(proxy, i / 2, i % 2) ? -1 : fd, .events = POLLIN};
        }
        poll(fds, 1 + 2 * (nfds_t)n_pairs, 1);
        if (fds[0].revents != 0) take_client(proxy);
        for (int i = n_pairs - 1; i >= 0; i--) {
            bool open = true;
            for (int side = 0; side < 2; side++)
                if (open && fds[1 + 2 * i + side].revents != 0) open = forward(proxy, i, side);
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

void tcp_proxy_hold(tcp_proxy *proxy, tcp_proxy_holds holds) {
    atomic_store(&proxy->holds, holds);
}

void tcp_proxy_stop(tcp_proxy *proxy) {
    atomic_store(&proxy->stops, true);
    pthread_join(proxy->thread, NULL);
    close(proxy->listener);
}
