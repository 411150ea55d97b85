/* Inside backend.c, and for tests of what it does when a device fails. Private to kernels/. */
#ifndef HOMERANK_KERNELS_BACKEND_INTERNAL_H
#define HOMERANK_KERNELS_BACKEND_INTERNAL_H

#include "kernels/backend.h"

/* hr_engine_create_on with the backends given: spare (may be NULL) takes the place of one that fails. */
hr_status hr__engine_create_with(const hr_backend_i *backend, const hr_backend_i *spare, const char *devices,
                                 hr_precision precision, const hr_plan *plan, hr_engine **engine,
                                 hr_error *err);

#endif
