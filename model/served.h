/* The table of what is served at one moment: immutable, so that requests read it while the next one is made.
 * Internal to model/. */
#ifndef HOMERANK_MODEL_SERVED_H
#define HOMERANK_MODEL_SERVED_H

#include "model/catalog.h"

typedef struct hr_served hr_served;

/* The table of all models of the catalog, with a reference to each. default_spec is borrowed and must outlive
 * it; "": none. NULL when out of memory. */
hr_served *hr_served_create(const hr_catalog *catalog, const char *default_spec);
void hr_served_destroy(hr_served *served); /* drops its references; NULL is allowed */

/* hr_repository_acquire. */
hr_status hr_served_acquire(const hr_served *served, const char *spec, hr_model **model, hr_error *err);

/* hr_repository_visit. */
void hr_served_visit(const hr_served *served, void (*visit)(const hr_model *model, void *arg), void *arg);

#endif
