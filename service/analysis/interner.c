/* Texts as numbers: see interner.h. Open addressing, at most half full. */
#include "service/analysis/interner.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct hr_interner {
    char **texts; /* (n) owned */
    uint32_t n, room;
    uint32_t *slots; /* (n_slots) number + 1; 0: free */
    uint32_t n_slots;
};

enum { FIRST_SLOTS = 1024, MOST_TEXTS = 1 << 30 };

hr_interner *hr_interner_create(void) {
    hr_interner *interner = calloc(1, sizeof *interner);
    if (interner == NULL) return NULL;
    interner->n_slots = FIRST_SLOTS;
    interner->slots = calloc(FIRST_SLOTS, sizeof *interner->slots);
    if (interner->slots != NULL) return interner;
    free(interner);
    return NULL;
}

void hr_interner_destroy(hr_interner *interner) {
    if (interner == NULL) return;
    for (uint32_t i = 0; i < interner->n; i++) free(interner->texts[i]);
    free(interner->texts);
    free(interner->slots);
    free(interner);
}

/* The slot that holds the text, or the free one where it belongs. */
static uint32_t *slot_of(const hr_interner *interner, uint32_t *slots, uint32_t n_slots, const char *text) {
    uint32_t at = (uint32_t)XXH64(text, strlen(text), 0) & (n_slots - 1);
    while (slots[at] != 0 && strcmp(interner->texts[slots[at] - 1], text) != 0) at = (at + 1) & (n_slots - 1);
    return &slots[at];
}

static bool grow_slots(hr_interner *interner) {
    uint32_t n_slots = interner->n_slots * 2;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (slots == NULL) return false;
    for (uint32_t i = 0; i < interner->n; i++) *slot_of(interner, slots, n_slots, interner->texts[i]) = i + 1;
    free(interner->slots);
    interner->slots = slots;
    interner->n_slots = n_slots;
    return true;
}

static bool grow_texts(hr_interner *interner) {
    uint32_t room = interner->room == 0 ? 64 : interner->room * 2;
    char **texts = realloc(interner->texts, room * sizeof *texts);
    if (texts == NULL) return false;
    interner->texts = texts;
    interner->room = room;
    return true;
}

uint32_t hr_interner_add(hr_interner *interner, const char *text) {
    uint32_t *slot = slot_of(interner, interner->slots, interner->n_slots, text);
    if (*slot != 0) return *slot - 1;
    if (interner->n == MOST_TEXTS) return HR_INTERNER_NONE;
    if (interner->n == interner->room && !grow_texts(interner)) return HR_INTERNER_NONE;
    if ((interner->n + 1) * 2 > interner->n_slots) {
        if (!grow_slots(interner)) return HR_INTERNER_NONE;
        slot = slot_of(interner, interner->slots, interner->n_slots, text);
    }
    char *copy = strdup(text);
    if (copy == NULL) return HR_INTERNER_NONE;
    interner->texts[interner->n] = copy;
    *slot = ++interner->n;
    return interner->n - 1;
}

uint32_t hr_interner_find(const hr_interner *interner, const char *text) {
    uint32_t slot = *slot_of(interner, interner->slots, interner->n_slots, text);
    return slot == 0 ? HR_INTERNER_NONE : slot - 1;
}

uint32_t hr_interner_count(const hr_interner *interner) {
    return interner->n;
}

const char *hr_interner_text(const hr_interner *interner, uint32_t number) {
    return interner->texts[number];
}
