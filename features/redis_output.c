/* Commands to send: see redis_output.h. */
#include "features/redis_output.h"

#include <stdlib.h>
#include <string.h>

#include "features/redis_wire.h"

/* Room for nbytes more; NULL (and out_of_memory) where there is none. */
static char *reserve(hr_redis_output *o, size_t nbytes) {
    if (nbytes > o->capacity - o->nbytes) {
        size_t capacity = (o->nbytes + nbytes) * 2 + 4096;
        char *grown = realloc(o->data, capacity);
        if (grown == NULL) {
            o->out_of_memory = true;
            return NULL;
        }
        o->data = grown;
        o->capacity = capacity;
    }
    return o->data + o->nbytes;
}

void hr_redis_output_begin(hr_redis_output *o, size_t n_texts) {
    o->mark = o->nbytes;
    o->out_of_memory = false;
    char *to = reserve(o, HR_REDIS_HEAD_NBYTES);
    if (to != NULL) o->nbytes = (size_t)(hr_redis_put_head(to, '*', n_texts) - o->data);
}

void hr_redis_output_text(hr_redis_output *o, const char *head, size_t head_nbytes, const char *tail,
                          size_t tail_nbytes) {
    char *to = reserve(o, HR_REDIS_HEAD_NBYTES + head_nbytes + tail_nbytes + 2);
    if (to == NULL) return;
    to = hr_redis_put_head(to, '$', head_nbytes + tail_nbytes);
    memcpy(to, head, head_nbytes);
    if (tail_nbytes > 0) memcpy(to + head_nbytes, tail, tail_nbytes);
    to += head_nbytes + tail_nbytes;
    memcpy(to, "\r\n", 2);
    o->nbytes = (size_t)(to + 2 - o->data);
}

hr_status hr_redis_output_end(hr_redis_output *o) {
    if (!o->out_of_memory) return HR_OK;
    hr_redis_output_take_back(o);
    return HR_OUT_OF_MEMORY;
}

void hr_redis_output_take_back(hr_redis_output *o) {
    o->nbytes = o->mark;
}

void hr_redis_output_free(hr_redis_output *o) {
    free(o->data);
    *o = (hr_redis_output){.data = NULL};
}
