/* cuda_weights_show.c - how far a load is: for a person, a bar; for a log, a line per tenth, at most one
 * a second. */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "gpu-engine/device/cuda/cuda_weights.h"

enum { BAR = 40 };

static void bar_draw(double share, double gb, double seconds)
{
    char bar[BAR + 1];
    int full = (int)(share * BAR);

    for (int i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = '\0';
    fprintf(stderr, "\rweights [%s] %3.0f %%  %.1f GB  %.1f GB/s%s", bar, share * 100, gb,
            seconds > 0 ? gb / seconds : 0.0, share >= 1 ? "\n" : "");
}

void cuda_weights_show(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    struct cuda_weights_shown *s = arg;
    double share = total_bytes > 0 ? (double)done_bytes / (double)total_bytes : 1.0;
    double gb = (double)done_bytes / 1e9;
    uint64_t now_ns = clock_now_ns();

    if (s->start_ns == 0)
        s->start_ns = s->told_ns = now_ns;
    if (isatty(STDERR_FILENO)) {
        if (share < 1 && now_ns - s->told_ns < 100 * NS_PER_MS)
            return;
        s->told_ns = now_ns;
        bar_draw(share, gb, (double)(now_ns - s->start_ns) / 1e9);
        return;
    }
    if ((uint32_t)(share * 10) <= s->tenths || now_ns - s->told_ns < NS_PER_S)
        return;
    s->told_ns = now_ns;
    s->tenths = (uint32_t)(share * 10);
    log_info("weights_loading", "pct=%" PRIu32 " gb=%.2f", s->tenths * 10, gb);
}
