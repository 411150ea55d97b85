/* Addresses: see server_address.h. */
#include "service/server_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A port of one to five digits up to 65535; -1 otherwise. */
static int parse_port(const char *digits) {
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 5 || digits[n] != '\0') return -1;
    int port = atoi(digits);
    return port <= UINT16_MAX ? port : -1;
}

/* The characters of a name or an address; colons and a zone only in brackets. */
static bool is_host(const char *host, size_t nbytes, bool bracketed) {
    static const char PLAIN[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    for (size_t i = 0; i < nbytes; i++) {
        bool fits = host[i] != '\0' && strchr(PLAIN, host[i]) != NULL;
        if (!fits && !(bracketed && (host[i] == ':' || host[i] == '%'))) return false;
    }
    return true;
}

hr_status hr_address_parse(const char *what, const char *text, hr_address *address, hr_error *err) {
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t nbytes = colon == NULL ? 0 : (size_t)(colon - text);
    int port = colon == NULL ? -1 : parse_port(colon + 1);
    bool bracketed = nbytes > 2 && host[0] == '[' && host[nbytes - 1] == ']';
    if (bracketed) {
        host++;
        nbytes -= 2;
    }
    if (port < 0 || nbytes == 0 || nbytes >= HR_HOST_SIZE || !is_host(host, nbytes, bracketed))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "%s %s: expected HOST:PORT (an IPv6 host in brackets)",
                            what, hr_quote(text, strlen(text)).text);
    memcpy(address->host, host, nbytes);
    address->host[nbytes] = '\0';
    address->port = (uint16_t)port;
    return HR_OK;
}

/* A listening socket, or why not. */
static const char *try_listen(const struct addrinfo *at, int *listening) {
    int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
    if (fd < 0) return strerror(errno);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
        *listening = fd;
        return NULL;
    }
    const char *failure = strerror(errno);
    close(fd);
    return failure;
}

/* What the host stands for, for freeaddrinfo, or why not. */
static const char *look_up(const hr_address *address, struct addrinfo **found) {
    char port[8];
    snprintf(port, sizeof port, "%u", address->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    *found = NULL;
    int failed = getaddrinfo(address->host, port, &hints, found);
    return failed != 0 ? gai_strerror(failed) : NULL;
}

static uint16_t bound_port(int fd) {
    union {
        struct sockaddr_in6 v6;
        struct sockaddr_in v4;
        struct sockaddr any;
    } name = {0};
    socklen_t nbytes = sizeof name;
    if (getsockname(fd, &name.any, &nbytes) != 0) return 0;
    return ntohs(name.any.sa_family == AF_INET6 ? name.v6.sin6_port : name.v4.sin_port);
}

hr_status hr_address_listen(const hr_address *address, int *fd, uint16_t *port, hr_error *err) {
    struct addrinfo *found;
    const char *failure = look_up(address, &found);
    *fd = -1;
    for (const struct addrinfo *at = found; at != NULL && *fd < 0; at = at->ai_next)
        failure = try_listen(at, fd);
    if (found != NULL) freeaddrinfo(found);
    if (*fd < 0) return hr_error_set(err, HR_IO, "%s", failure);
    *port = bound_port(*fd);
    return HR_OK;
}

const char *hr_address_bind_failure(const hr_address *address) {
    struct addrinfo *found;
    const char *failure = look_up(address, &found);
    for (const struct addrinfo *at = found; at != NULL && failure == NULL; at = at->ai_next) {
        int fd = -1;
        failure = try_listen(at, &fd);
        if (fd >= 0) close(fd);
    }
    if (found != NULL) freeaddrinfo(found);
    return failure == NULL ? "the address cannot be listened on" : failure;
}
