/* A gRPC client for the server's tests: single steps of a call, each waiting for its event, on the C core.
 * A step that does not end within WAIT_S seconds fails the test. One thread at a time. */
#ifndef HOMERANK_TESTS_SERVICE_RPC_PEER_H
#define HOMERANK_TESTS_SERVICE_RPC_PEER_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct peer peer;
typedef struct peer_call peer_call;

peer *peer_connect(uint16_t port);
peer *peer_connect_gzip(uint16_t port); /* compresses what it sends */
void peer_close(peer *p);               /* cancels what is open */

/* Opens a call; timeout_ms 0: no deadline. */
peer_call *peer_open(peer *p, const char *path, uint32_t timeout_ms);

/* False where it cannot be sent any more (the call has ended). */
bool peer_send(peer_call *call, const void *bytes, size_t nbytes);
bool peer_send_message(peer_call *call, const ProtobufCMessage *message);
void peer_half_close(peer_call *call);
void peer_cancel(peer_call *call);

/* The next message unpacked (protobuf_c_message_free_unpacked), or NULL: the server sends no more. */
void *peer_receive(peer_call *call, const ProtobufCMessageDescriptor *descriptor);

/* Waits for the final status, frees the call. text (may be NULL) gets the status's text. */
int peer_finish(peer_call *call, char text[512]);

/* A whole unary call: the answer in *answer (NULL where none) and the status. */
int peer_unary(peer *p, const char *path, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *descriptor, void **answer, char text[512]);

#endif
