/* verdict.c - see verdict.h. */
#include "tests/gpu/verdict.h"

/* Below this a launch's own latency (1-3 us) is too large a part of what is compared. */
static const double WIRE_US_MIN = 5.0;
/* B began after less than this share of the wire time: bytes must still have been on their way. */
static const double OVERLAP_SHARE = 0.7;
/* B began after at least this share at every size: consistent with waiting. */
static const double WAIT_SHARE = 0.9;
/* ... and beyond what a kernel boundary costs anyway, A's end was held up by at least so much. */
static const double HELD_US_MIN = 2.0;

static double point_total_us(const struct posted_point *p)
{
    return p->issued_us + p->gap_us;
}

double posted_rate(const struct posted_point *points, size_t n)
{
    if (n < 2)
        return 0.0;
    const struct posted_point *a = &points[n - 2], *b = &points[n - 1];
    const double us = point_total_us(b) - point_total_us(a);
    return us > 0.0 && b->bytes > a->bytes ? (b->bytes - a->bytes) / us : 0.0;
}

enum posted_verdict posted_judge(const struct posted_point *points, size_t n)
{
    const double rate = posted_rate(points, n);
    int n_judged = 0, all_late = 1;
    double held_us = 0.0;
    for (size_t i = 0; rate > 0.0 && i < n; i++) {
        const double wire_us = points[i].bytes / rate;
        const double held = points[i].gap_us - points[i].control_gap_us;
        if (wire_us < WIRE_US_MIN)
            continue;
        n_judged++;
        if (point_total_us(&points[i]) < OVERLAP_SHARE * wire_us)
            return POSTED_OVERLAPS;
        all_late &= point_total_us(&points[i]) >= WAIT_SHARE * wire_us;
        held_us = held > held_us ? held : held_us;
    }
    return n_judged && all_late && held_us >= HELD_US_MIN ? POSTED_WAITS : POSTED_UNCLEAR;
}

const char *posted_verdict_name(enum posted_verdict verdict)
{
    switch (verdict) {
    case POSTED_WAITS:
        return "waits";
    case POSTED_OVERLAPS:
        return "overlaps";
    case POSTED_UNCLEAR:
        break;
    }
    return "unclear";
}
