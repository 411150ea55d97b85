/* Addresses: see server_address.h. */
#include "service/server_address.h"

#include <errno.h>
#include <netdb.h>
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

static const char *try_bind(const struct addrinfo *at) {
    int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0) return strerror(errno);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const char *failure = NULL;
    if (bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, 1) != 0) failure = strerror(errno);
    close(fd);
    return failure;
}

const char *hr_address_bind_failure(const hr_address *address) {
    char port[8];
    snprintf(port, sizeof port, "%u", address->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int failed = getaddrinfo(address->host, port, &hints, &found);
    if (failed != 0) return gai_strerror(failed);
    const char *failure = NULL;
    for (const struct addrinfo *at = found; at != NULL && failure == NULL; at = at->ai_next)
        failure = try_bind(at);
    freeaddrinfo(found);
    return failure == NULL ? "the address cannot be listened on" : failure;
}
