/* The network drawn: see diagnostics_html.h.
 *
 * From left to right: v, then for each layer a column of units with their experts and a column of gates, then
 * the tasks. Every column is spread over the drawing's whole height. All sizes are in pixels of the viewBox.
 */
#include <stdarg.h>
#include <string.h>

#include "service/diagnostics_html.h"

enum {
    FEATURES_W = 26,
    LINK_W = 60, /* between a layer and the next */
    BOX_W = 160, /* a unit and its experts */
    MIX_W = 164, /* between experts and gates */
    GATE_W = 152,
    TASK_W = 176,
    LAYER_W = BOX_W + MIX_W + GATE_W + LINK_W,
    EXPERT_W = 34,
    EXPERT_H = 15,
    EXPERT_PITCH = 19,
    BOX_PAD = 5,
    NODE_H = 24, /* a gate or a task */
    GAP = 7,     /* at least, between the things of a column */
    TOP = 34,    /* for the layers' names */
    NAME_CHARS = 14
};

typedef struct place {
    double box_y, box_h; /* of the unit with its experts; h is 0 where it has none */
    double gate_y;       /* where it mixes */
} place;

typedef struct drawing {
    const hr_diagnostics *d;
    const hr_plan *plan;
    FILE *out;
    place **places; /* (n_layers) of (n_units) */
    double *task_y; /* (T) */
    double height;  /* of the columns */
} drawing;

/* ---- Where everything stands ---- */

static double layer_x(uint32_t y) {
    return FEATURES_W + LINK_W + (double)y * LAYER_W;
}

static double gate_x(uint32_t y) {
    return layer_x(y) + BOX_W + MIX_W;
}

static double box_height(const hr_unit *unit) {
    return unit->n_experts == 0 ? 0.0 : (double)unit->n_experts * EXPERT_PITCH + 2.0 * BOX_PAD;
}

/* A column's things: how many, and their heights together. */
typedef struct column {
    uint32_t n;
    double sum;
} column;

static column box_column(const hr_layer *layer) {
    column c = {0};
    for (uint32_t u = 0; u < layer->n_units; u++) {
        c.n += layer->units[u].n_experts > 0;
        c.sum += box_height(&layer->units[u]);
    }
    return c;
}

static column gate_column(const hr_layer *layer) {
    column c = {0};
    for (uint32_t u = 0; u < layer->n_units; u++) c.n += layer->units[u].n_mix > 0;
    c.sum = (double)c.n * NODE_H;
    return c;
}

static void fit(drawing *g, column c) {
    double height = c.sum + (double)c.n * GAP;
    if (height > g->height) g->height = height;
}

/* The space around each thing of a column that fills the height. */
static double column_gap(const drawing *g, column c) {
    return c.n == 0 ? 0.0 : (g->height - c.sum) / c.n;
}

static void place_layer(drawing *g, uint32_t y) {
    const hr_layer *layer = &g->plan->layers[y];
    double box_gap = column_gap(g, box_column(layer)), gate_gap = column_gap(g, gate_column(layer));
    double box_at = TOP + box_gap / 2, gate_at = TOP + gate_gap / 2;
    for (uint32_t u = 0; u < layer->n_units; u++) {
        place *p = &g->places[y][u];
        if (layer->units[u].n_experts > 0) {
            p->box_y = box_at;
            p->box_h = box_height(&layer->units[u]);
            box_at += p->box_h + box_gap;
        }
        if (layer->units[u].n_mix > 0) {
            p->gate_y = gate_at;
            gate_at += NODE_H + gate_gap;
        }
    }
}

static hr_status place_all(drawing *g, hr_arena *arena, hr_error *err) {
    const hr_plan *plan = g->plan;
    const column tasks = {plan->n_tasks, (double)plan->n_tasks * NODE_H};
    g->places = hr_arena_calloc(arena, plan->n_layers, sizeof *g->places);
    g->task_y = hr_arena_calloc(arena, plan->n_tasks, sizeof *g->task_y);
    if (g->places == NULL || g->task_y == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "the drawing");
    fit(g, tasks);
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        fit(g, box_column(&plan->layers[y]));
        fit(g, gate_column(&plan->layers[y]));
    }
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        g->places[y] = hr_arena_calloc(arena, plan->layers[y].n_units, sizeof *g->places[y]);
        if (g->places[y] == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "the drawing");
        place_layer(g, y);
    }
    double gap = column_gap(g, tasks);
    for (uint32_t t = 0; t < plan->n_tasks; t++) g->task_y[t] = TOP + gap / 2 + t * (NODE_H + gap);
    return HR_OK;
}

static double expert_y(const drawing *g, uint32_t y, uint32_t u, uint32_t k) {
    return g->places[y][u].box_y + BOX_PAD + (double)k * EXPERT_PITCH + EXPERT_PITCH / 2.0;
}

/* ---- Lines ---- */

/* A curve that leaves and arrives level. */
static void curve(const drawing *g, double x1, double y1, double x2, double y2) {
    double bend = (x2 - x1) / 2;
    fprintf(g->out, " d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f\"", x1, y1, x1 + bend, y1, x2 - bend, y2,
            x2, y2);
}

/* From what an input names to (x, y). */
static void draw_link(const drawing *g, const hr_source *source, double x, double y) {
    double from_x = FEATURES_W, from_y = y;
    if (source->layer != HR_SOURCE_FEATURES) {
        from_x = gate_x((uint32_t)source->layer) + GATE_W;
        from_y = g->places[source->layer][source->unit].gate_y + NODE_H / 2.0;
    }
    fputs("<path class=\"link\"", g->out);
    curve(g, from_x, from_y, x, y);
    fputs("/>\n", g->out);
}

/* An edge as wide and as dark as its weight; nan and the like are drawn thin. */
static void draw_weight(const drawing *g, const char *kind, hr_diagnostic_name from, const char *to,
                        double weight, double x1, double y1, double x2, double y2) {
    double drawn = weight > 0.0 && weight <= 1.0 ? weight : 0.0;
    fprintf(g->out, "<path class=\"%s\" stroke-width=\"%.2f\" stroke-opacity=\"%.2f\"", kind,
            0.8 + 6.0 * drawn, 0.16 + 0.74 * drawn);
    curve(g, x1, y1, x2, y2);
    fputs("><title>", g->out);
    hr_html_text(g->out, from.text);
    fputs(" → ", g->out);
    hr_html_text(g->out, to);
    fprintf(g->out, ": %.4f</title></path>\n", weight);
}

static void draw_mix(const drawing *g, uint32_t y, uint32_t u) {
    const hr_unit *unit = &g->plan->layers[y].units[u];
    hr_gate_measures m = hr_diagnostics_gate(g->d, y, u);
    double x1 = layer_x(y) + BOX_W, x2 = gate_x(y), y2 = g->places[y][u].gate_y + NODE_H / 2.0;
    for (uint32_t j = 0; j < unit->n_mixed; j++) {
        uint32_t lender, k;
        hr_diagnostics_mixed(g->d, y, u, j, &lender, &k);
        draw_weight(g, lender == u ? "own" : "lent", hr_diagnostics_expert_name(g->d, y, lender, k),
                    unit->name, m.weights[j], x1, expert_y(g, y, lender, k), x2, y2 - 2);
    }
    for (uint32_t k = 0; m.self_weights != NULL && k < unit->n_experts; k++)
        draw_weight(g, "self", hr_diagnostics_expert_name(g->d, y, u, k), "self gate", m.self_weights[k], x1,
                    expert_y(g, y, u, k) + 3, x2, y2 + 6);
}

static void draw_lines(const drawing *g) {
    const hr_plan *plan = g->plan;
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        for (uint32_t u = 0; u < plan->layers[y].n_units; u++) {
            const hr_unit *unit = &plan->layers[y].units[u];
            const place *p = &g->places[y][u];
            for (uint32_t s = 0; unit->n_experts > 0 && s < unit->input.n_sources; s++)
                draw_link(g, &unit->input.sources[s], layer_x(y), p->box_y + p->box_h / 2);
            if (unit->n_mix > 0) draw_mix(g, y, u);
        }
    }
    for (uint32_t t = 0; t < plan->n_tasks; t++)
        draw_link(g, &plan->tasks[t].input, layer_x(plan->n_layers), g->task_y[t] + NODE_H / 2.0);
}

/* ---- Boxes ---- */

static void draw_rect(const drawing *g, const char *kind, double x, double y, double width, double height) {
    fprintf(g->out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"4\"/>",
            kind, x, y, width, height);
}

static void draw_text(const drawing *g, const char *kind, double x, double y, const char *text) {
    fprintf(g->out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", kind, x, y);
    hr_html_text_cut(g->out, text, NAME_CHARS);
    fputs("</text>", g->out);
}

static void draw_textf(const drawing *g, const char *kind, double x, double y, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static void draw_textf(const drawing *g, const char *kind, double x, double y, const char *format, ...) {
    char text[64];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    draw_text(g, kind, x, y, text);
}

static void draw_expert(const drawing *g, uint32_t y, uint32_t u, uint32_t k) {
    const hr_unit *unit = &g->plan->layers[y].units[u];
    double x = layer_x(y) + BOX_W - EXPERT_W - BOX_PAD, mid = expert_y(g, y, u, k);
    hr_expert_measures m = {0};
    hr_verdict verdict = HR_VERDICT_NONE;
    for (uint32_t i = 0; i < unit->n_expert_layers; i++) {
        m = hr_diagnostics_expert(g->d, y, u, k, i);
        if (m.verdict != HR_VERDICT_NONE) verdict = m.verdict;
    }
    if (verdict == HR_VERDICT_NONE) verdict = hr_diagnostics_use(g->d, y, u, k).verdict;
    fputs("<g>", g->out);
    draw_rect(g, verdict == HR_VERDICT_NONE ? "expert" : "expert bad", x, mid - EXPERT_H / 2.0, EXPERT_W,
              EXPERT_H);
    draw_textf(g, "middle", x + EXPERT_W / 2.0, mid + 3.5, "%u", (unsigned)k);
    fputs("<title>", g->out);
    hr_html_text(g->out, hr_diagnostics_expert_name(g->d, y, u, k).text);
    fprintf(g->out, ": %.1f %% zeros, %u dead of %u, mean %.3g, std %.3g %s</title></g>\n",
            100.0 * m.zero_share, (unsigned)m.n_dead, (unsigned)m.width, m.mean, m.std,
            hr_verdict_word(verdict));
}

static void draw_unit(const drawing *g, uint32_t y, uint32_t u) {
    const hr_unit *unit = &g->plan->layers[y].units[u];
    const place *p = &g->places[y][u];
    if (unit->n_experts > 0) {
        fputs("<g>", g->out);
        draw_rect(g, "unit", layer_x(y), p->box_y, BOX_W, p->box_h);
        draw_text(g, "name", layer_x(y) + 8, p->box_y + p->box_h / 2 + 4, unit->name);
        fputs("<title>", g->out);
        hr_html_text(g->out, hr_diagnostics_unit_name(g->d, y, u).text);
        fputs("</title></g>\n", g->out);
        for (uint32_t k = 0; k < unit->n_experts; k++) draw_expert(g, y, u, k);
    }
    if (unit->n_mix > 0) {
        hr_gate_measures m = hr_diagnostics_gate(g->d, y, u);
        bool bad = m.degradation != HR_VERDICT_NONE || m.underfitting != HR_VERDICT_NONE;
        fputs("<g>", g->out);
        draw_rect(g, bad ? "gate bad" : "gate", gate_x(y), p->gate_y, GATE_W, NODE_H);
        draw_text(g, "name", gate_x(y) + 8, p->gate_y + 16, unit->name);
        draw_textf(g, "end", gate_x(y) + GATE_W - 6, p->gate_y + 16, "%.2f", m.entropy);
        fputs("<title>", g->out);
        hr_html_text(g->out, hr_diagnostics_unit_name(g->d, y, u).text);
        fprintf(g->out, ": gate of %u experts, entropy %.3f %s %s</title></g>\n", (unsigned)unit->n_mixed,
                m.entropy, hr_verdict_word(m.degradation), hr_verdict_word(m.underfitting));
    }
}

static void draw_task(const drawing *g, uint32_t t) {
    double x = layer_x(g->plan->n_layers);
    fputs("<g>", g->out);
    draw_rect(g, "task", x, g->task_y[t], TASK_W, NODE_H);
    draw_text(g, "name", x + 8, g->task_y[t] + 16, g->plan->tasks[t].name);
    draw_textf(g, "end", x + TASK_W - 6, g->task_y[t] + 16, "%.3g", hr_diagnostics_output(g->d, t));
    fputs("<title>", g->out);
    hr_html_text(g->out, g->plan->tasks[t].name);
    fprintf(g->out, ": mean output %.4g</title></g>\n", hr_diagnostics_output(g->d, t));
}

static void draw_columns(const drawing *g) {
    const hr_plan *plan = g->plan;
    draw_rect(g, "features", 0, TOP, FEATURES_W, g->height);
    fprintf(g->out,
            "<text class=\"middle name\" transform=\"translate(%.1f %.1f) rotate(-90)\">features, D = "
            "%u</text>\n",
            FEATURES_W / 2.0 + 4, TOP + g->height / 2, (unsigned)plan->schema->width);
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        draw_text(g, "head", layer_x(y), 18, plan->layers[y].name);
        draw_text(g, "head", gate_x(y), 18, "gates");
        for (uint32_t u = 0; u < plan->layers[y].n_units; u++) draw_unit(g, y, u);
    }
    draw_text(g, "head", layer_x(plan->n_layers), 18, "tasks");
    for (uint32_t t = 0; t < plan->n_tasks; t++) draw_task(g, t);
}

hr_status hr_html_network(const hr_diagnostics *diagnostics, hr_arena *arena, FILE *out, hr_error *err) {
    drawing g = {.d = diagnostics, .plan = hr_diagnostics_plan(diagnostics), .out = out, .height = 120};
    hr_status status = place_all(&g, arena, err);
    if (status != HR_OK) return status;
    double width = layer_x(g.plan->n_layers) + TASK_W;
    fprintf(out,
            "<svg class=\"network\" viewBox=\"-1 0 %.0f %.0f\" style=\"min-width:%.0fpx;max-width:%.0fpx\" "
            "role=\"img\" aria-label=\"the network\">\n",
            width + 2, g.height + TOP + 4, 0.7 * width, width + 2);
    draw_lines(&g);
    draw_columns(&g);
    fputs("</svg>\n", out);
    return HR_OK;
}
