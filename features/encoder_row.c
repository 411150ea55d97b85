/* Bound values to an encoded row (MODEL.md 3, "Features: from stored values to the vector v").
 *
 * A binding is first seen as one `source`, whatever it came from. A feature of one value reads the source as
 * it is; a feature of a list walks it with next_element, to which one value is a list of one and the text of
 * a hash's field is a list with commas. Numbers are doubles until they are stored.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/decimal.h"
#include "features/encoder_internal.h"
#include "features/encoder_text.h"

typedef enum source_kind {
    SOURCE_MISSING,
    SOURCE_NUMBER,
    SOURCE_TEXT,
    SOURCE_TEXTS,
    SOURCE_NUMBERS,
    SOURCE_PLAIN /* the text of a hash's field, not empty */
} source_kind;

typedef struct source {
    source_kind kind;
    double number;
    const char *text; /* TEXT and PLAIN: nbytes; not NUL-terminated */
    size_t nbytes;
    char *const *texts;    /* TEXTS: (n) NUL-terminated */
    const double *numbers; /* NUMBERS: (n) */
    size_t n;              /* elements, seen as a list */
    bool is_inline;
} source;

/* One element of a list: a number or a text. */
typedef struct element {
    bool is_number;
    double number;
    const char *text;
    size_t nbytes;
} element;

/* What one feature is encoded with. */
typedef struct encoding {
    const hr_encoder_step *step;
    source *from;
    uint32_t *n_invalid;
    hr_error *err;
} encoding;

static source source_of_value(const Homerank__V1__FeatureValue *value) {
    source from = {.kind = SOURCE_MISSING};
    if (value == NULL) return from;
    switch (value->kind_case) {
    case HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER:
        from = (source){.kind = SOURCE_NUMBER, .number = value->number, .n = 1};
        break;
    case HOMERANK__V1__FEATURE_VALUE__KIND_ID:
        from = (source){.kind = SOURCE_TEXT, .text = value->id, .nbytes = strlen(value->id), .n = 1};
        break;
    case HOMERANK__V1__FEATURE_VALUE__KIND_IDS:
        from = (source){.kind = SOURCE_TEXTS, .texts = value->ids->values, .n = value->ids->n_values};
        break;
    case HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS:
        from = (source){
            .kind = SOURCE_NUMBERS, .numbers = value->numbers->values, .n = value->numbers->n_values};
        break;
    default: break;
    }
    return from;
}

static size_t count_commas(const char *text, size_t nbytes) {
    size_t n = 0;
    for (size_t i = 0; i < nbytes; i++) n += text[i] == ',';
    return n;
}

/* A hash has no other way to hold an empty list or a null than an empty text: it is missing. */
static source source_of_plain(const char *text, size_t nbytes) {
    if (nbytes == 0) return (source){.kind = SOURCE_MISSING};
    return (source){
        .kind = SOURCE_PLAIN, .text = text, .nbytes = nbytes, .n = 1 + count_commas(text, nbytes)};
}

static source source_of_step(const hr_encoder_step *step, const char *id, const hr_binding *bindings) {
    if (step->binding == HR_BINDING_OWN_ID)
        return (source){.kind = SOURCE_TEXT, .text = id, .nbytes = strlen(id), .n = 1};
    const hr_binding *binding = &bindings[step->binding];
    source from = binding->plain != NULL ? source_of_plain(binding->plain, binding->plain_nbytes)
                                         : source_of_value(binding->value);
    from.is_inline = binding->is_inline;
    return from;
}

/* Takes the next element off the source; there must be one (n > 0). */
static element next_element(source *from) {
    element next = {.is_number = false};
    from->n--;
    switch (from->kind) {
    case SOURCE_NUMBER: next = (element){.is_number = true, .number = from->number}; break;
    case SOURCE_NUMBERS: next = (element){.is_number = true, .number = *from->numbers++}; break;
    case SOURCE_TEXT: next = (element){.text = from->text, .nbytes = from->nbytes}; break;
    case SOURCE_TEXTS:
        next = (element){.text = *from->texts, .nbytes = strlen(*from->texts)};
        from->texts++;
        break;
    case SOURCE_PLAIN: {
        const char *comma = memchr(from->text, ',', from->nbytes);
        size_t nbytes = comma == NULL ? from->nbytes : (size_t)(comma - from->text);
        next = (element){.text = from->text, .nbytes = nbytes};
        from->text += comma == NULL ? nbytes : nbytes + 1;
        from->nbytes -= comma == NULL ? nbytes : nbytes + 1;
        break;
    }
    case SOURCE_MISSING: break;
    }
    return next;
}

/* "the text \"x\"", "the number 1.5", "a list of 3 texts", for errors. */
static void describe(const source *from, char *out, size_t room) {
    switch (from->kind) {
    case SOURCE_NUMBER: snprintf(out, room, "the number %.17g", from->number); break;
    case SOURCE_TEXT:
    case SOURCE_PLAIN: snprintf(out, room, "the text %s", hr_quote(from->text, from->nbytes).text); break;
    case SOURCE_TEXTS: snprintf(out, room, "a list of %zu texts", from->n); break;
    case SOURCE_NUMBERS: snprintf(out, room, "a list of %zu numbers", from->n); break;
    case SOURCE_MISSING: snprintf(out, room, "nothing"); break;
    }
}

/* A value, or a list's element, of the wrong kind: counted where it is stored, an error where it is inline.
 */
static hr_status refuse(const encoding *in, const char *expected, const source *found) {
    if (!in->from->is_inline) {
        ++*in->n_invalid;
        return HR_OK;
    }
    char description[HR_QUOTE_SIZE + 32];
    describe(found, description, sizeof description);
    const hr_feature *feature = in->step->feature;
    hr_error_set(in->err, HR_INVALID_ARGUMENT, "expected %s, found %s", expected, description);
    if (strcmp(feature->field, feature->name) != 0)
        hr_error_prefix(in->err, "field %s", hr_quote(feature->field, strlen(feature->field)).text);
    hr_error_prefix(in->err, "feature %s", hr_quote(feature->name, strlen(feature->name)).text);
    return HR_INVALID_ARGUMENT;
}

static hr_status refuse_element(const encoding *in, const char *expected, const element *found) {
    source as_source = {.kind = found->is_number ? SOURCE_NUMBER : SOURCE_TEXT,
                        .number = found->number,
                        .text = found->text,
                        .nbytes = found->nbytes};
    return refuse(in, expected, &as_source);
}

/* The row of a number's text; false where it has none because it is not integral. */
static bool number_row(const hr_table *table, double number, uint32_t *row) {
    char text[HR_DECIMAL_SIZE];
    size_t nbytes = hr_decimal_text(number, text);
    if (nbytes == 0) return false;
    *row = hr_table_row(table, text, nbytes);
    return true;
}

static hr_status encode_id(const encoding *in, uint32_t *index) {
    const source *from = in->from;
    *index = 0;
    switch (from->kind) {
    case SOURCE_MISSING: return HR_OK;
    case SOURCE_TEXT:
    case SOURCE_PLAIN: *index = hr_table_row(in->step->table, from->text, from->nbytes); return HR_OK;
    case SOURCE_NUMBER:
        if (number_row(in->step->table, from->number, index)) return HR_OK;
        break;
    case SOURCE_TEXTS:
    case SOURCE_NUMBERS: break;
    }
    return refuse(in, "an id: a text or an integral number", from);
}

static hr_status encode_ids(const encoding *in, uint32_t *index) {
    const hr_feature *feature = in->step->feature;
    size_t count = in->from->n < feature->max_length ? in->from->n : feature->max_length;
    memset(index, 0, (1 + (size_t)feature->max_length) * sizeof *index);
    index[0] = (uint32_t)count;
    for (size_t i = 1; i <= count; i++) {
        element next = next_element(in->from);
        /* A NaN in a list of numbers is its null (DESIGN 5): missing, so row 0 like any unknown id. */
        if (!next.is_number) {
            index[i] = hr_table_row(in->step->table, next.text, next.nbytes);
        } else if (!number_row(in->step->table, next.number, &index[i]) &&
                   !(isnan(next.number) && in->from->kind == SOURCE_NUMBERS)) {
            hr_status status = refuse_element(in, "ids: texts or integral numbers", &next);
            if (status != HR_OK) return status;
        }
    }
    return HR_OK;
}

/* The number that one value stands for; NaN where it is missing or, being stored, of the wrong kind. */
static hr_status read_number(const encoding *in, double *number) {
    const source *from = in->from;
    *number = NAN;
    switch (from->kind) {
    case SOURCE_MISSING: return HR_OK;
    case SOURCE_NUMBER: *number = from->number; return HR_OK;
    case SOURCE_TEXT:
    case SOURCE_PLAIN:
        if (hr__text_number(from->text, from->nbytes, number)) return HR_OK;
        break;
    case SOURCE_TEXTS:
    case SOURCE_NUMBERS: break;
    }
    return refuse(in, "a number", from);
}

static hr_status encode_number(const encoding *in, float *dense) {
    const hr_feature *feature = in->step->feature;
    double x;
    *dense = 0;
    hr_status status = read_number(in, &x);
    if (status != HR_OK || !isfinite(x) || (feature->log1p && x < 0)) return status;
    if (feature->log1p) x = log1p(x);
    float value = (float)((x - feature->mean) / feature->std);
    if (isfinite(value)) *dense = value;
    return HR_OK;
}

/* Row 1 + #{b : b <= x}. */
static hr_status encode_bucket(const encoding *in, uint32_t *index) {
    const hr_feature *feature = in->step->feature;
    double x;
    *index = 0;
    hr_status status = read_number(in, &x);
    if (status != HR_OK || !isfinite(x)) return status;
    uint32_t low = 0, high = feature->n_boundaries; /* the first boundary > x is in [low, high] */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (feature->boundaries[middle] <= x)
            low = middle + 1;
        else
            high = middle;
    }
    *index = 1 + low;
    return HR_OK;
}

/* The elements as floats; *usable is false where one is missing or not finite, and those behind it are
 * unread. */
static hr_status read_numbers(const encoding *in, float *dense, bool *usable) {
    *usable = true;
    for (uint32_t i = 0; i < in->step->feature->length; i++) {
        element next = next_element(in->from);
        /* An empty text in a list of texts is its null (DESIGN 5): missing. */
        bool is_null = !next.is_number && next.nbytes == 0 && in->from->kind != SOURCE_TEXT;
        if (is_null) next.number = NAN;
        if (!is_null && !next.is_number && !hr__text_number(next.text, next.nbytes, &next.number)) {
            *usable = false;
            return refuse_element(in, "numbers", &next);
        }
        dense[i] = (float)next.number;
        if (!isfinite(dense[i])) *usable = false;
    }
    return HR_OK;
}

static hr_status encode_numbers(const encoding *in, float *dense) {
    const uint32_t length = in->step->feature->length;
    bool usable = false;
    hr_status status = HR_OK;
    if (in->from->kind != SOURCE_MISSING && in->from->n != length) {
        char expected[40];
        snprintf(expected, sizeof expected, "%u numbers", (unsigned)length);
        status = refuse(in, expected, in->from);
    } else if (in->from->kind != SOURCE_MISSING) {
        status = read_numbers(in, dense, &usable);
    }
    if (!usable) memset(dense, 0, length * sizeof *dense);
    return status;
}

/* Encodes one feature's words of a row. */
static hr_status encode_step(const hr_entity_plan *plan, const hr_encoder_step *step, source from, void *row,
                             uint32_t *n_invalid, hr_error *err) {
    uint32_t *index = (uint32_t *)row + step->feature->slot;
    float *dense = (float *)((uint32_t *)row + plan->n_index) + step->feature->slot;
    const encoding in = {.step = step, .from = &from, .n_invalid = n_invalid, .err = err};
    switch (step->feature->kind) {
    case HR_FEATURE_ID: return encode_id(&in, index);
    case HR_FEATURE_IDS: return encode_ids(&in, index);
    case HR_FEATURE_NUMBER: return encode_number(&in, dense);
    case HR_FEATURE_BUCKET: return encode_bucket(&in, index);
    case HR_FEATURE_NUMBERS: return encode_numbers(&in, dense);
    }
    return HR_OK;
}

hr_status hr_encode_row(const hr_encoder *encoder, hr_entity entity, const char *id,
                        const hr_binding *bindings, void *row, uint32_t *n_invalid, hr_error *err) {
    const hr_entity_plan *plan = &encoder->plans[entity];
    hr_status status = HR_OK;
    for (uint32_t i = 0; i < plan->n_steps && status == HR_OK; i++) {
        const hr_encoder_step *step = &plan->steps[i];
        status = encode_step(plan, step, source_of_step(step, id, bindings), row, n_invalid, err);
    }
    return status;
}

size_t hr_encoder_n_counts(const hr_encoder *encoder, hr_entity entity) {
    return 1 + (size_t)encoder->plans[entity].n_steps;
}

uint32_t hr_encode_stored(const hr_encoder *encoder, hr_entity entity, const char *id,
                          const hr_binding *bindings, void *row, uint32_t *n_wrong) {
    const hr_entity_plan *plan = &encoder->plans[entity];
    uint32_t sum = 0;
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        const hr_encoder_step *step = &plan->steps[i];
        n_wrong[1 + i] = 0;
        encode_step(plan, step, source_of_step(step, id, bindings), row, &n_wrong[1 + i], NULL);
        sum += n_wrong[1 + i];
    }
    return sum;
}

hr_status hr_encode_inline(const hr_encoder *encoder, hr_entity entity, const hr_binding *bindings, void *row,
                           const uint32_t *n_wrong, uint32_t *n_invalid, hr_error *err) {
    const hr_entity_plan *plan = &encoder->plans[entity];
    hr_status status = HR_OK;
    for (uint32_t i = 0; i < plan->n_steps && status == HR_OK; i++) {
        const hr_encoder_step *step = &plan->steps[i];
        if (step->binding == HR_BINDING_OWN_ID || !bindings[step->binding].is_inline) continue;
        if (n_wrong != NULL) *n_invalid -= n_wrong[1 + i];
        status = encode_step(plan, step, source_of_step(step, "", bindings), row, n_invalid, err);
    }
    return status;
}
