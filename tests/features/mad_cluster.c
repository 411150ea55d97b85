/* A Redis Cluster gone mad: see mad_cluster.h. */
#include "tests/features/mad_cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_WORDS = 2100, HEARD_NBYTES = 1 << 18, SAID_NBYTES = 1 << 19, N_SLOTS = 16384, TICK_MS = 1 };

struct mad_client {
    int fd;
    bool subscribed, mute, ended;
    char heard[HEARD_NBYTES];
    size_t n_heard;
    char said[SAID_NBYTES]; /* to be sent after all commands at hand */
    size_t n_said;
};

typedef struct word {
    const char *at;
    int n;
} word;

static unsigned draw(mad_cluster *m, unsigned below) {
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned)(m->random >> 11) % below;
}

__attribute__((format(printf, 2, 3))) static void say(mad_client *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(c->said + c->n_said, sizeof c->said - c->n_said, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof c->said - c->n_said)
        c->ended = true;
    else
        c->n_said += (size_t)n;
}

static void say_text(mad_client *c, const char *text, int n) {
    say(c, "$%d\r\n%.*s\r\n", n, n, text);
}

/* --- the map -------------------------------------------------------------------------------------------- */

static void say_host(mad_cluster *m, mad_client *c) {
    const unsigned d = draw(m, 10);
    if (d == 0) say(c, "$0\r\n\r\n");
    if (d == 1) say(c, "$-1\r\n");
    if (d > 1) say_text(c, "127.0.0.1", 9);
}

static void say_shard_node(mad_cluster *m, mad_client *c, unsigned node, bool master) {
    say(c, "*8\r\n$8\r\nendpoint\r\n");
    say_host(m, c);
    say(c, "$4\r\nport\r\n:%u\r\n", m->ports[node]);
    say(c, "$4\r\nrole\r\n$%d\r\n%s\r\n", master ? 6 : 7, master ? "master" : "replica");
    say(c, "$6\r\nhealth\r\n");
    say(c, draw(m, 8) == 0 ? "$4\r\nfail\r\n" : "$6\r\nonline\r\n");
}

/* Some of the nodes are masters of a range each, another is the replica of each; perhaps not of every slot.
 */
static void say_map(mad_cluster *m, mad_client *c, bool slots) {
    const unsigned n_masters = 1 + draw(m, MAD_NODES - 1), first = draw(m, MAD_NODES);
    const unsigned hole = draw(m, 10) == 0 ? draw(m, n_masters) : n_masters;
    say(c, "*%u\r\n", n_masters - (hole < n_masters));
    for (unsigned i = 0; i < n_masters; i++) {
        const unsigned master = (first + i) % MAD_NODES, replica = (first + n_masters) % MAD_NODES;
        const unsigned from = N_SLOTS / n_masters * i;
        const unsigned to = i + 1 == n_masters ? N_SLOTS - 1 : N_SLOTS / n_masters * (i + 1) - 1;
        if (i == hole) continue;
        if (slots) {
            say(c, "*4\r\n:%u\r\n:%u\r\n*2\r\n", from, to);
            say_host(m, c);
            say(c, ":%u\r\n*2\r\n", m->ports[master]);
            say_host(m, c);
            say(c, ":%u\r\n", m->ports[replica]);
            continue;
        }
        say(c, "*4\r\n$5\r\nslots\r\n*2\r\n:%u\r\n:%u\r\n$5\r\nnodes\r\n*2\r\n", from, to);
        say_shard_node(m, c, master, true);
        say_shard_node(m, c, replica, false);
    }
}

/* --- answers -------------------------------------------------------------------------------------------- */

static bool is(word w, const char *text) {
    return (size_t)w.n == strlen(text) && strncasecmp(w.at, text, strlen(text)) == 0;
}

/* The right one, but that a record may be gone. */
static void answer_read(mad_cluster *m, mad_client *c, const word *words, unsigned n) {
    const bool hash = is(words[0], "HMGET"), many = is(words[0], "MGET");
    if (hash || many) say(c, "*%u\r\n", hash ? n - 2 : n - 1);
    for (unsigned i = hash ? 2 : 1; i < n; i++) {
        const word key = hash ? words[1] : words[i];
        if (draw(m, 8) == 0)
            say(c, "$-1\r\n");
        else
            say_text(c, key.at, key.n);
    }
}

static void answer(mad_cluster *m, mad_client *c, const word *words, unsigned n) {
    if (is(words[0], "PING")) {
        say(c, c->subscribed ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n" : "+PONG\r\n");
    } else if (is(words[0], "CLUSTER")) {
        if (draw(m, 4) == 0 && is(words[1], "SHARDS"))
            say(c, "-ERR unknown subcommand\r\n");
        else
            say_map(m, c, is(words[1], "SLOTS"));
    } else if (is(words[0], "CLIENT")) {
        say(c, is(words[1], "ID") ? ":7\r\n" : "+OK\r\n");
    } else if (is(words[0], "SUBSCRIBE")) {
        say(c, "*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n");
        c->subscribed = true;
    } else if (is(words[0], "GET") || is(words[0], "MGET") || is(words[0], "HMGET")) {
        answer_read(m, c, words, n);
    } else {
        say(c, "+OK\r\n"); /* ASKING, READONLY */
    }
}

static void misbehave(mad_cluster *m, mad_client *c, const word *words, unsigned n) {
    const unsigned slot = draw(m, N_SLOTS), port = m->ports[draw(m, MAD_NODES)];
    const size_t n_before = c->n_said;
    switch (draw(m, 20)) {
    case 0:
    case 1:
    case 2: say(c, "-MOVED %u 127.0.0.1:%u\r\n", slot, port); break;
    case 3:
    case 4: say(c, "-ASK %u 127.0.0.1:%u\r\n", slot, port); break;
    case 5: say(c, "-ASK %u :%u\r\n", slot, port); break;
    case 6:
    case 7: say(c, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n"); break;
    case 8: say(c, "-CLUSTERDOWN Hash slot not served\r\n"); break;
    case 9: say(c, "-LOADING Redis is loading the dataset in memory\r\n"); break;
    case 10: say(c, "-MASTERDOWN Link with MASTER is down\r\n"); break;
    case 11: say(c, "-WRONGTYPE Operation against a key\r\n"); break;
    case 12: say(c, "-ERR no\r\n"); break;
    case 13: c->ended = true; break;
    case 14: /* half of it */
        answer(m, c, words, n);
        c->n_said = n_before + (c->n_said - n_before) / 2;
        c->ended = true;
        break;
    case 15: c->mute = true; break;
    case 16: say(c, "*2\r\n:1\r\n*1\r\n$-1\r\n"); break;
    case 17: say(c, "*2147483647\r\n$5\r\nhello\r\n"); break;
    case 18: say(c, "$400000000\r\nhello\r\n"); break; /* and what follows is part of it */
    default: say(c, "HTTP/1.1 200 OK\r\n"); break;
    }
}

/* --- commands ------------------------------------------------------------------------------------------- */

/* A number and CR LF, behind the type's character; NULL where it has not come yet. */
static const char *read_length(const char *at, const char *end, int *n) {
    const char *line_end = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    if (line_end == NULL) return NULL;
    *n = atoi(at + 1);
    return line_end + 1;
}

/* The first command; its end, or NULL where it has not come whole. */
static const char *read_command(const char *at, const char *end, word words[MAX_WORDS], unsigned *n) {
    int n_words = 0;
    at = read_length(at, end, &n_words);
    if (n_words > MAX_WORDS) return NULL;
    for (int i = 0; at != NULL && i < n_words; i++) {
        at = read_length(at, end, &words[i].n);
        if (at == NULL || end - at < words[i].n + 2) return NULL;
        words[i].at = at;
        at += words[i].n + 2;
    }
    *n = (unsigned)n_words;
    return at;
}

static void hear(mad_cluster *m, mad_client *c) {
    static word words[MAX_WORDS];
    const ssize_t n = recv(c->fd, c->heard + c->n_heard, sizeof c->heard - c->n_heard, MSG_DONTWAIT);
    if (n <= 0) {
        c->ended = n == 0 || errno != EAGAIN;
        return;
    }
    c->n_heard += (size_t)n;
    const char *at = c->heard, *end = at + c->n_heard, *next;
    unsigned n_words;
    while (!c->ended && (next = read_command(at, end, words, &n_words)) != NULL) {
        if (!c->mute) (draw(m, m->odds) == 0 ? misbehave : answer)(m, c, words, n_words);
        at = next;
    }
    c->n_heard = (size_t)(end - at);
    memmove(c->heard, at, c->n_heard);
}

static void tell_change(mad_cluster *m, mad_client *c) {
    char key[32];
    const int n = snprintf(key, sizeof key, "hr:item:%u", draw(m, 64));
    say(c, "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n");
    if (draw(m, 20) == 0)
        say(c, "$-1\r\n");
    else
        say(c, "*1\r\n$%d\r\n%s\r\n", n, key);
}

/* --- its thread ----------------------------------------------------------------------------------------- */

static void flush(mad_client *c) {
    if (c->n_said > 0 && send(c->fd, c->said, c->n_said, MSG_NOSIGNAL) != (ssize_t)c->n_said) c->ended = true;
    c->n_said = 0;
}

static void drop_ended(mad_cluster *m) {
    size_t n = 0;
    for (size_t i = 0; i < m->n_clients; i++) {
        mad_client *c = m->clients[i];
        if (!c->ended) {
            m->clients[n++] = c;
            continue;
        }
        close(c->fd);
        free(c);
    }
    m->n_clients = n;
}

static void accept_client(mad_cluster *m, int listener) {
    const struct timeval patience = {.tv_usec = 100000};
    const int fd = accept(listener, NULL, NULL);
    mad_client *c = fd >= 0 && m->n_clients < MAD_MAX_CLIENTS ? calloc(1, sizeof *c) : NULL;
    if (c == NULL) {
        if (fd >= 0) close(fd);
        return;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    c->fd = fd;
    m->clients[m->n_clients++] = c;
}

static void *run(void *arg) {
    mad_cluster *m = arg;
    struct pollfd fds[MAD_NODES + MAD_MAX_CLIENTS];
    while (!atomic_load(&m->stops)) {
        const size_t n = m->n_clients;
        for (size_t i = 0; i < MAD_NODES; i++) fds[i] = (struct pollfd){m->listeners[i], POLLIN, 0};
        for (size_t i = 0; i < n; i++) fds[MAD_NODES + i] = (struct pollfd){m->clients[i]->fd, POLLIN, 0};
        poll(fds, MAD_NODES + n, TICK_MS);
        for (size_t i = 0; i < n; i++) {
            mad_client *c = m->clients[i];
            if (fds[MAD_NODES + i].revents != 0) hear(m, c);
            if (c->subscribed && !c->mute && draw(m, 4) == 0) tell_change(m, c);
            flush(c);
        }
        for (size_t i = 0; i < MAD_NODES; i++)
            if (fds[i].revents != 0) accept_client(m, m->listeners[i]);
        drop_ended(m);
    }
    return NULL;
}

static int listen_on_loopback(uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

void mad_cluster_start(mad_cluster *m, uint64_t seed, unsigned odds) {
    memset(m, 0, sizeof *m);
    m->odds = odds;
    m->random = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    for (size_t i = 0; i < MAD_NODES; i++) m->listeners[i] = listen_on_loopback(&m->ports[i]);
    snprintf(m->uri, sizeof m->uri, "redis-cluster://127.0.0.1:%u,127.0.0.1:%u", m->ports[0], m->ports[1]);
    assert_int_equal(pthread_create(&m->thread, NULL, run, m), 0);
}

void mad_cluster_stop(mad_cluster *m) {
    atomic_store(&m->stops, true);
    pthread_join(m->thread, NULL);
    for (size_t i = 0; i < m->n_clients; i++) m->clients[i]->ended = true;
    drop_ended(m);
    for (size_t i = 0; i < MAD_NODES; i++) close(m->listeners[i]);
}
