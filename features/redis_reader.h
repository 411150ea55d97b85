/* Reads the Redis protocol (RESP2) as its bytes come, and tells each reply as events; it keeps none of it.
 *
 * A text is handed on in the pieces in which it came, so that a value of 100 MB costs the reader no memory
 * and a record is copied once, to where it belongs. (hiredis' reader gathers whole replies in a buffer that
 * it moves as it is read; that was a quarter of a fetch's time.)
 *
 * What it takes: the types of RESP2, lengths as Redis writes them (no sign, no leading zero), at most
 * HR_REDIS_MAX_DEPTH arrays inside each other. Anything else is an error, and the stream is lost.
 *
 * Thread rule: one thread at a time. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_READER_H
#define HOMERANK_FEATURES_REDIS_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HR_REDIS_MAX_DEPTH = 8,
    HR_REDIS_MAX_TEXT_NBYTES = 512 << 20, /* of a value, as Redis has it */
    HR_REDIS_MAX_LINE_NBYTES = 64 << 10,  /* of a status or an error */
    HR_REDIS_LINE_SIZE = 256              /* of those, so much is told (one byte less) */
};

/* Where an event stands: the reply itself at depth 0, the elements of its array at depth 1, ... */
typedef struct hr_redis_place {
    uint32_t depth;
    size_t index; /* in the array around it; 0 at depth 0 */
} hr_redis_place;

/* nbytes bytes at `offset` of a text of `total`. The pieces of a text come in order and without another event
 * between them; an empty text is one empty piece. */
typedef struct hr_redis_piece {
    const char *bytes; /* borrowed during the call */
    size_t nbytes, offset, total;
} hr_redis_piece;

/* The events; all required. Any may return false: the reader stops there (see HR_REDIS_READ_STOPPED). */
typedef struct hr_redis_reader_i {
    bool (*array)(void *context, hr_redis_place place, size_t n_elements); /* its elements follow */
    bool (*text)(void *context, hr_redis_place place, const hr_redis_piece *piece);
    bool (*line)(void *context, hr_redis_place place, bool is_error, const char *text, size_t nbytes);
    bool (*integer)(void *context, hr_redis_place place, int64_t value);
    bool (*nil)(void *context, hr_redis_place place);
    bool (*end)(void *context); /* the reply is whole */
} hr_redis_reader_i;

typedef enum hr_redis_read {
    HR_REDIS_READ_ALL,
    HR_REDIS_READ_STOPPED, /* an event returned false */
    HR_REDIS_READ_INVALID  /* not the protocol: reader.error says what was expected and found */
} hr_redis_read;

typedef struct hr_redis_reader {
    const hr_redis_reader_i *i;
    void *context;
    char error[128]; /* printable */
    /* Its own. */
    enum { HR_REDIS_IN_LINE, HR_REDIS_IN_TEXT, HR_REDIS_AFTER_TEXT } state;
    char line[HR_REDIS_LINE_SIZE]; /* the beginning of a line that a read has cut */
    size_t line_nbytes;            /* of the whole line so far */
    char line_end[2];              /* its last two bytes */
    size_t text_offset, text_total;
    uint32_t n_after; /* bytes of the text's CR LF seen */
    uint32_t depth;
    struct {
        size_t index, n_elements;
    } arrays[HR_REDIS_MAX_DEPTH];
} hr_redis_reader;

void hr_redis_reader_init(hr_redis_reader *reader, const hr_redis_reader_i *i, void *context);

/* Reads the next bytes of the stream. After anything but READ_ALL the reader may only be initialised again.
 */
hr_redis_read hr_redis_reader_feed(hr_redis_reader *reader, const char *bytes, size_t nbytes);

#endif
