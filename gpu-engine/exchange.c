#include "gpu-engine/exchange.h"

#include "common/base/clock.h"

enum { LOOK_US = 20 }; /* a job takes about as long */

void exchange_await(struct exchange *x, const struct exchange_wait *wait)
{
    uint64_t pause_ns = (x->poll_us > 0 ? x->poll_us : (uint32_t)LOOK_US) * NS_PER_US, now;

    if (x->ops->await != NULL) {
        x->ops->await(x, wait);
        return;
    }
    while (!wait->enough(wait->arg) && (now = clock_now_ns()) < wait->until_ns)
        clock_sleep_ns(wait->until_ns - now < pause_ns ? wait->until_ns - now : pause_ns);
}
