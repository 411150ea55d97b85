/* The gates as heat maps: see diagnostics_html.h.
 *
 * One table a layer, one row a gate. An expert that several gates see has a column of its own; those that
 * only their own unit's gate sees share the columns "own", so that many tasks do not make a table of empty
 * cells.
 */
#include "service/diagnostics_html.h"

enum { MAX_LEVEL_TITLES = 9 }; /* with more of them they stand upright */

typedef enum heat_kind { HEAT_GAP, HEAT_LENT, HEAT_OWN, HEAT_SELF } heat_kind;

typedef struct heat_column {
    heat_kind kind;
    uint32_t u, k;     /* LENT: the expert; else k is the index among the unit's own */
    const char *title; /* over `span` columns, from the one with k = 0 */
    uint32_t span;
} heat_column;

typedef struct heat_map {
    const hr_diagnostics *d;
    const hr_layer *layer;
    uint32_t y;
    heat_column *columns;
    size_t n_columns;
    FILE *out;
} heat_map;

static bool is_lent(const heat_map *map, uint32_t u) {
    for (uint32_t g = 0; g < map->layer->n_units && map->layer->units[u].n_experts > 0; g++) {
        if (g != u && hr_diagnostics_weight(map->d, map->y, g, u, 0) >= 0.0) return true;
    }
    return false;
}

static bool is_own_only(const heat_map *map, uint32_t u) {
    return map->layer->units[u].n_experts > 0 && !is_lent(map, u) &&
           hr_diagnostics_weight(map->d, map->y, u, u, 0) >= 0.0;
}

/* ---- Columns ---- */

static void add_columns(heat_map *map, heat_kind kind, uint32_t u, const char *title, uint32_t n) {
    for (uint32_t k = 0; k < n; k++) map->columns[map->n_columns++] = (heat_column){kind, u, k, title, n};
}

/* A gap, then `n` columns; nothing for none. */
static void add_group(heat_map *map, heat_kind kind, const char *title, uint32_t n) {
    if (n == 0) return;
    map->columns[map->n_columns++] = (heat_column){.kind = HEAT_GAP};
    add_columns(map, kind, 0, title, n);
}

static hr_status lay_out(heat_map *map, hr_arena *arena, hr_error *err) {
    uint32_t n_experts = 0, n_own = 0, n_self = 0;
    for (uint32_t u = 0; u < map->layer->n_units; u++) {
        const hr_unit *unit = &map->layer->units[u];
        n_experts += unit->n_experts;
        if (is_own_only(map, u) && unit->n_experts > n_own) n_own = unit->n_experts;
        if (unit->self_gate && unit->n_experts > n_self) n_self = unit->n_experts;
    }
    map->n_columns = 0;
    map->columns = hr_arena_calloc(arena, (size_t)n_experts + n_own + n_self + 2, sizeof *map->columns);
    if (map->columns == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "the heat maps");
    for (uint32_t u = 0; u < map->layer->n_units; u++) {
        const hr_unit *unit = &map->layer->units[u];
        if (is_lent(map, u)) add_columns(map, HEAT_LENT, u, unit->name, unit->n_experts);
    }
    add_group(map, HEAT_OWN, "own", n_own);
    add_group(map, HEAT_SELF, "self gate", n_self);
    return HR_OK;
}

static void write_head(const heat_map *map) {
    size_t n_titles = 0;
    for (size_t c = 0; c < map->n_columns; c++)
        n_titles += map->columns[c].kind != HEAT_GAP && map->columns[c].k == 0;
    fprintf(map->out, "<tr%s><th class=\"unit\">gate of</th>",
            n_titles > MAX_LEVEL_TITLES ? " class=\"tall\"" : "");
    for (size_t c = 0; c < map->n_columns; c++) {
        const heat_column *column = &map->columns[c];
        if (column->kind == HEAT_GAP) {
            fputs("<th class=\"gap\"></th>", map->out);
        } else if (column->k == 0) {
            fprintf(map->out, "<th colspan=\"%u\"><span>", (unsigned)column->span);
            hr_html_text(map->out, column->title);
            fputs("</span></th>", map->out);
        }
    }
    fputs("<th class=\"gap\"></th><th>largest</th><th>entropy</th><th>row entropy</th><th></th></tr>\n"
          "<tr><th class=\"unit\">expert</th>",
          map->out);
    for (size_t c = 0; c < map->n_columns; c++) {
        if (map->columns[c].kind == HEAT_GAP) {
            fputs("<th class=\"gap\"></th>", map->out);
        } else {
            fprintf(map->out, "<th>%u</th>", (unsigned)map->columns[c].k);
        }
    }
    fputs("<th class=\"gap\"></th><th></th><th></th><th></th><th></th></tr>\n", map->out);
}

/* ---- Rows ---- */

/* Between nearly white and the full colour. */
static void write_weight(const heat_map *map, double weight, const int full[3]) {
    double t = weight > 0.0 && weight <= 1.0 ? weight : 0.0;
    int rgb[3];
    for (int c = 0; c < 3; c++) rgb[c] = (int)(246.0 + t * (full[c] - 246.0));
    fprintf(map->out, "<td class=\"w\" style=\"background:rgb(%d,%d,%d)%s\">%.2f</td>", rgb[0], rgb[1],
            rgb[2], t > 0.45 ? ";color:#fff" : "", weight);
}

/* What the gate of unit u gives a column; -1 where it has no such expert. */
static double column_weight(const heat_map *map, uint32_t u, const hr_gate_measures *m,
                            const heat_column *column) {
    const bool has_expert = column->k < map->layer->units[u].n_experts;
    switch (column->kind) {
    case HEAT_LENT: return hr_diagnostics_weight(map->d, map->y, u, column->u, column->k);
    case HEAT_OWN:
        return has_expert && is_own_only(map, u) ? hr_diagnostics_weight(map->d, map->y, u, u, column->k)
                                                 : -1.0;
    case HEAT_SELF: return has_expert && m->self_weights != NULL ? m->self_weights[column->k] : -1.0;
    case HEAT_GAP: break;
    }
    return -1.0;
}

static void write_cell(const heat_map *map, uint32_t u, const hr_gate_measures *m,
                       const heat_column *column) {
    static const int blue[3] = {20, 74, 148}, violet[3] = {92, 48, 150}, teal[3] = {4, 98, 80};
    double weight = column_weight(map, u, m, column);
    if (column->kind == HEAT_GAP) {
        fputs("<td class=\"gap\"></td>", map->out);
    } else if (weight < 0.0) {
        fputs("<td class=\"off\"></td>", map->out);
    } else if (column->kind == HEAT_SELF) {
        write_weight(map, weight, teal);
    } else {
        write_weight(map, weight, column->kind == HEAT_OWN || column->u == u ? violet : blue);
    }
}

static void write_row(const heat_map *map, uint32_t u) {
    hr_gate_measures m = hr_diagnostics_gate(map->d, map->y, u);
    fputs("<tr><td class=\"unit\">", map->out);
    hr_html_text(map->out, map->layer->units[u].name);
    fputs("</td>", map->out);
    for (size_t c = 0; c < map->n_columns; c++) write_cell(map, u, &m, &map->columns[c]);
    fprintf(map->out, "<td class=\"gap\"></td><td>%.2f</td><td>%.2f</td><td>%.2f</td><td class=\"v\">",
            m.weights[m.largest], m.entropy, m.row_entropy);
    hr_html_verdict(map->out, m.degradation);
    hr_html_verdict(map->out, m.underfitting);
    fputs("</td></tr>\n", map->out);
}

hr_status hr_html_gates(const hr_diagnostics *diagnostics, hr_arena *arena, FILE *out, hr_error *err) {
    const hr_plan *plan = hr_diagnostics_plan(diagnostics);
    hr_status status = HR_OK;
    fputs("<section>\n<h2>Degradation: what the gates mix</h2>\n<p class=\"soft\">Mean weights. A row is one "
          "gate and "
          "sums to 1, its self gate aside. Grey: not in the unit's mix.</p>\n",
          out);
    for (uint32_t y = 0; y < plan->n_layers && status == HR_OK; y++) {
        heat_map map = {.d = diagnostics, .layer = &plan->layers[y], .y = y, .out = out};
        status = lay_out(&map, arena, err);
        if (status != HR_OK) break;
        fputs("<h3>layer ", out);
        hr_html_text(out, map.layer->name);
        fputs("</h3>\n<table class=\"heat\">\n", out);
        write_head(&map);
        for (uint32_t u = 0; u < map.layer->n_units; u++) {
            if (map.layer->units[u].n_mix > 0) write_row(&map, u);
        }
        fputs("</table>\n", out);
    }
    fputs("</section>\n", out);
    return status;
}
