/* The index of the embedded descriptors: see reflection.h. One sorted table of full names, made at start. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "proto/unpack.h"
#include "service/reflection.h"
#include "service/reflection_descriptors.h"

enum { MAX_SYMBOLS = 4096, MAX_SERVICES = 64, ARENA_CAP_NBYTES = 4 << 20 };

typedef struct symbol {
    const char *name; /* arena */
    const hr_reflection_file *file;
} symbol;

struct hr_reflection {
    hr_arena *arena; /* owns all below */
    hr_reflection_file *files;
    size_t n_files;
    symbol *symbols; /* (n_symbols) sorted by name */
    size_t n_symbols;
    const char **services;
    size_t n_services;
};

/* The file being indexed. A failure sticks, so that the walk needs no checks. */
typedef struct walk {
    hr_reflection *index;
    const hr_reflection_file *file;
    hr_status status;
} walk;

/* Adds scope.name (scope "" for none) and returns the full name; never NULL. */
static const char *add_symbol(walk *w, const char *scope, const char *name) {
    size_t scope_nbytes = strlen(scope), name_nbytes = strlen(name);
    size_t dot = scope_nbytes > 0;
    char *full = hr_arena_alloc(w->index->arena, scope_nbytes + dot + name_nbytes + 1);
    if (full == NULL || w->index->n_symbols == MAX_SYMBOLS) {
        w->status = HR_OUT_OF_MEMORY;
        return "";
    }
    memcpy(full, scope, scope_nbytes);
    if (dot) full[scope_nbytes] = '.';
    memcpy(full + scope_nbytes + dot, name, name_nbytes + 1);
    w->index->symbols[w->index->n_symbols++] = (symbol){.name = full, .file = w->file};
    return full;
}

/* A value's scope is its enum's scope, as in C++. */
static void add_enum(walk *w, const char *scope, const Google__Protobuf__EnumDescriptorProto *e) {
    add_symbol(w, scope, e->name);
    for (size_t i = 0; i < e->n_value; i++) add_symbol(w, scope, e->value[i]->name);
}

static void add_message(walk *w, const char *scope, const Google__Protobuf__DescriptorProto *message) {
    const char *name = add_symbol(w, scope, message->name);
    for (size_t i = 0; i < message->n_field; i++) add_symbol(w, name, message->field[i]->name);
    for (size_t i = 0; i < message->n_enum_type; i++) add_enum(w, name, message->enum_type[i]);
    for (size_t i = 0; i < message->n_nested_type; i++) add_message(w, name, message->nested_type[i]);
}

static void add_service(walk *w, const char *scope, const Google__Protobuf__ServiceDescriptorProto *service) {
    const char *name = add_symbol(w, scope, service->name);
    for (size_t i = 0; i < service->n_method; i++) add_symbol(w, name, service->method[i]->name);
    if (w->index->n_services == MAX_SERVICES)
        w->status = HR_OUT_OF_MEMORY;
    else
        w->index->services[w->index->n_services++] = name;
}

static hr_status add_file(hr_reflection *index, const Google__Protobuf__FileDescriptorProto *proto) {
    hr_reflection_file *file = &index->files[index->n_files];
    file->nbytes = protobuf_c_message_get_packed_size(&proto->base);
    uint8_t *bytes = hr_arena_alloc(index->arena, file->nbytes);
    if (bytes == NULL) return HR_OUT_OF_MEMORY;
    protobuf_c_message_pack(&proto->base, bytes);
    file->bytes = bytes;
    file->name = proto->name;
    index->n_files++;
    walk w = {.index = index, .file = file, .status = HR_OK};
    for (size_t i = 0; i < proto->n_message_type; i++)
        add_message(&w, proto->package, proto->message_type[i]);
    for (size_t i = 0; i < proto->n_enum_type; i++) add_enum(&w, proto->package, proto->enum_type[i]);
    for (size_t i = 0; i < proto->n_service; i++) add_service(&w, proto->package, proto->service[i]);
    return w.status;
}

static int compare_symbols(const void *a, const void *b) {
    return strcmp(((const symbol *)a)->name, ((const symbol *)b)->name);
}

static hr_status build(hr_reflection *index, hr_error *err) {
    ProtobufCMessage *message = NULL;
    hr_status status =
        hr_proto_unpack(&google__protobuf__file_descriptor_set__descriptor, hr_reflection_descriptors,
                        hr_reflection_descriptors_nbytes, index->arena, &message, err);
    if (status != HR_OK) return hr_error_prefix(err, "embedded descriptors");
    const Google__Protobuf__FileDescriptorSet *set = (const Google__Protobuf__FileDescriptorSet *)message;
    index->files = hr_arena_calloc(index->arena, set->n_file, sizeof *index->files);
    index->symbols = hr_arena_calloc(index->arena, MAX_SYMBOLS, sizeof *index->symbols);
    index->services = hr_arena_calloc(index->arena, MAX_SERVICES, sizeof *index->services);
    if (index->files == NULL || index->symbols == NULL || index->services == NULL) status = HR_OUT_OF_MEMORY;
    for (size_t i = 0; i < set->n_file && status == HR_OK; i++) status = add_file(index, set->file[i]);
    if (status != HR_OK) return hr_error_set(err, status, "embedded descriptors: no memory for their index");
    qsort(index->symbols, index->n_symbols, sizeof *index->symbols, compare_symbols);
    return HR_OK;
}

hr_status hr_reflection_create(hr_reflection **reflection, hr_error *err) {
    hr_reflection *index = calloc(1, sizeof *index);
    hr_arena *arena = hr_arena_create(ARENA_CAP_NBYTES);
    if (index == NULL || arena == NULL) {
        free(index);
        hr_arena_destroy(arena);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "embedded descriptors: no memory for their index");
    }
    index->arena = arena;
    hr_status status = build(index, err);
    if (status == HR_OK)
        *reflection = index;
    else
        hr_reflection_destroy(index);
    return status;
}

void hr_reflection_destroy(hr_reflection *reflection) {
    if (reflection == NULL) return;
    hr_arena_destroy(reflection->arena);
    free(reflection);
}

const hr_reflection_file *hr_reflection_find_file(const hr_reflection *reflection, const char *name) {
    for (size_t i = 0; i < reflection->n_files; i++)
        if (strcmp(reflection->files[i].name, name) == 0) return &reflection->files[i];
    return NULL;
}

const hr_reflection_file *hr_reflection_find_symbol(const hr_reflection *reflection, const char *name) {
    symbol key = {.name = name};
    const symbol *found = bsearch(&key, reflection->symbols, reflection->n_symbols,
                                  sizeof *reflection->symbols, compare_symbols);
    return found == NULL ? NULL : found->file;
}

const char *const *hr_reflection_services(const hr_reflection *reflection, size_t *n_services) {
    *n_services = reflection->n_services;
    return reflection->services;
}
