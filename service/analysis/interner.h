/* Texts as small numbers: each distinct text gets the next one. One thread. */
#ifndef HOMERANK_SERVICE_ANALYSIS_INTERNER_H
#define HOMERANK_SERVICE_ANALYSIS_INTERNER_H

#include <stdint.h>

typedef struct hr_interner hr_interner;

enum { HR_INTERNER_NONE = UINT32_MAX };

hr_interner *hr_interner_create(void);           /* NULL when out of memory */
void hr_interner_destroy(hr_interner *interner); /* NULL is allowed */

/* The text's number, its own from now on; HR_INTERNER_NONE when out of memory. The text is copied. */
uint32_t hr_interner_add(hr_interner *interner, const char *text);

/* The text's number, or HR_INTERNER_NONE where it was never added. */
uint32_t hr_interner_find(const hr_interner *interner, const char *text);

uint32_t hr_interner_count(const hr_interner *interner);
const char *hr_interner_text(const hr_interner *interner, uint32_t number);

#endif
