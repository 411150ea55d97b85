/* The loader's messages: see load_progress.h. */
#include "features/load_progress.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"

static const uint64_t draw_every_ns = 100000000;
enum { BAR_WIDTH = 30 };

hr_load_progress hr_load_progress_begin(FILE *out, bool bar) {
    return (hr_load_progress){.out = out, .bar = bar && out != NULL, .begin_ns = hr_clock_ns()};
}

/* "[#####-----]  50 %  " */
static void draw_share(FILE *out, double share) {
    char bar[BAR_WIDTH + 1];
    int full = (int)(share * BAR_WIDTH);
    memset(bar, '-', BAR_WIDTH);
    memset(bar, '#', (size_t)full);
    bar[BAR_WIDTH] = '\0';
    fprintf(out, "[%s] %3.0f %%  ", bar, share * 100);
}

void hr_load_progress_draw(hr_load_progress *p, uint64_t n_records, uint64_t nbytes, uint64_t nbytes_total) {
    uint64_t now_ns = hr_clock_ns();
    if (!p->bar || now_ns - p->drawn_ns < draw_every_ns) return;
    p->drawn_ns = now_ns;
    p->visible = true;
    double seconds = (double)(now_ns - p->begin_ns + 1) / 1e9;
    double share = nbytes_total > 0 ? (double)nbytes / (double)nbytes_total : 0;
    if (share > 1) share = 1; /* the file grew meanwhile */
    fputs("\r\x1b[K", p->out);
    if (nbytes_total > 0) draw_share(p->out, share);
    fprintf(p->out, "%" PRIu64 " records  %.0f/s  %.1f", n_records, (double)n_records / seconds,
            (double)nbytes / 1e6);
    if (nbytes_total > 0) fprintf(p->out, " of %.1f", (double)nbytes_total / 1e6);
    fputs(" MB", p->out);
    if (share > 0) fprintf(p->out, "  %.0f s left", seconds * (1 - share) / share);
    fflush(p->out);
}

static void clear(hr_load_progress *p) {
    if (p->visible) fputs("\r\x1b[K", p->out);
    p->visible = false;
}

void hr_load_progress_say(hr_load_progress *p, const char *path, uint64_t line, const char *message) {
    if (p->out == NULL) return;
    clear(p);
    fprintf(p->out, "%s:%" PRIu64 ": %s\n", path, line, message);
}

void hr_load_progress_end(hr_load_progress *p) {
    if (p->out == NULL) return;
    clear(p);
    fflush(p->out);
}
