/* HOST:PORT, as a listener or a target. Any thread. */
#ifndef HOMERANK_SERVICE_SERVER_ADDRESS_H
#define HOMERANK_SERVICE_SERVER_ADDRESS_H

#include <stdint.h>

#include "base/status.h"

enum { HR_HOST_SIZE = 256 };

typedef struct hr_address {
    char host[HR_HOST_SIZE]; /* without the brackets of an IPv6 address */
    uint16_t port;
} hr_address;

/* "localhost:8500", "127.0.0.1:0", "[::1]:8500". Errors: INVALID_ARGUMENT "what "...": expected HOST:PORT".
 */
hr_status hr_address_parse(const char *what, const char *text, hr_address *address, hr_error *err);

/* Opens a listening socket, non-blocking and close-on-exec, on the first address that the host stands for and
 * that can be had; *port is the one bound (0 asks for any). Errors: IO, the reason alone. */
hr_status hr_address_listen(const hr_address *address, int *fd, uint16_t *port, hr_error *err);

/* Why the address cannot be listened on, found by trying: "Address already in use". Static or thread-local
 * text. */
const char *hr_address_bind_failure(const hr_address *address);

#endif
