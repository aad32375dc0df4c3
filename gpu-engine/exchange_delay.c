#include "gpu-engine/exchange_delay.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/hash.h"

enum { DELAY_POLL_US = 200 }; /* nothing wakes the engine when a held result becomes visible */

struct exchange_delay {
    struct exchange base; /* first */
    struct exchange *inner;
    uint32_t polls_max;
    uint64_t n_looks;  /* at copies */
    uint32_t *arrived; /* [n_slots] generation last seen finished by the inner exchange */
    uint32_t *visible; /* [n_slots] generation shown */
    uint32_t *hold;    /* [n_slots] polls until visible follows arrived */
    uint32_t *fresh;   /* [n_slots] scratch of one poll */
};

static struct exchange_delay *delay_of(struct exchange *x)
{
    return (struct exchange_delay *)x;
}

static void delay_payload(struct exchange *x, uint32_t slot, struct exchange_payload *out)
{
    struct exchange *inner = delay_of(x)->inner;

    inner->ops->payload(inner, slot, out);
}

static int delay_post(struct exchange *x, const struct exchange_job *job, uint32_t *generation)
{
    struct exchange *inner = delay_of(x)->inner;

    return inner->ops->post(inner, job, generation);
}

static void delay_flush(struct exchange *x)
{
    struct exchange *inner = delay_of(x)->inner;

    inner->ops->flush(inner);
}

static void delay_rouse(struct exchange *x, uint32_t worker)
{
    exchange_rouse(delay_of(x)->inner, worker);
}

static uint32_t polls_held(const struct exchange_delay *d, uint32_t slot, uint32_t generation)
{
    uint32_t key[2] = {slot, generation};

    return (uint32_t)(hash_bytes(HASH_SEED, key, sizeof key) % (d->polls_max + 1));
}

static void delay_poll_done(struct exchange *x, uint32_t *done)
{
    struct exchange_delay *d = delay_of(x);

    d->inner->ops->poll_done(d->inner, d->fresh);
    for (uint32_t s = 0; s < exchange_n_slots(x); s++) {
        if (d->fresh[s] != d->arrived[s]) {
            d->arrived[s] = d->fresh[s];
            d->hold[s] = polls_held(d, s, d->fresh[s]);
        } else if (d->hold[s] > 0) {
            d->hold[s]--;
        }
        if (d->hold[s] == 0)
            d->visible[s] = d->arrived[s];
        done[s] = d->visible[s];
    }
}

static int delay_take(struct exchange *x, uint32_t slot, uint32_t generation)
{
    struct exchange *inner = delay_of(x)->inner;

    return inner->ops->take(inner, slot, generation);
}

static void *delay_staging(struct exchange *x, uint32_t worker, uint32_t block)
{
    struct exchange *inner = delay_of(x)->inner;

    return inner->ops->staging(inner, worker, block);
}

/* A copy between staging and arena takes as many looks as the longest result is held for polls;
 * the bytes are there from the start, as with the inner exchange. */
static int delay_copy(struct exchange *x, uint32_t worker, const uint32_t *blocks, uint32_t n,
                      uint64_t *ticket)
{
    struct exchange_delay *d = delay_of(x);

    (void)worker;
    (void)blocks;
    (void)n;
    *ticket = d->n_looks + d->polls_max;
    return 0;
}

static int delay_copy_done(struct exchange *x, uint64_t ticket)
{
    return delay_of(x)->n_looks++ >= ticket;
}

static enum exchange_peer delay_peer(struct exchange *x, uint32_t worker)
{
    struct exchange *inner = delay_of(x)->inner;

    return inner->ops->peer(inner, worker);
}

static uint64_t delay_read_rate(struct exchange *x, uint32_t worker)
{
    return exchange_read_rate(delay_of(x)->inner, worker);
}

static uint64_t delay_start_ns(struct exchange *x, uint32_t worker)
{
    return exchange_start_ns(delay_of(x)->inner, worker);
}

static uint32_t delay_peer_pid(struct exchange *x, uint32_t worker)
{
    return exchange_peer_pid(delay_of(x)->inner, worker);
}

static int delay_slot_release(struct exchange *x, uint32_t slot)
{
    struct exchange *inner = delay_of(x)->inner;

    return inner->ops->slot_release(inner, slot);
}

static uint32_t delay_n_blocks(struct exchange *x, uint32_t worker)
{
    struct exchange *inner = delay_of(x)->inner;

    return inner->ops->n_blocks(inner, worker);
}

static void delay_set_owner(struct exchange *x, uint32_t worker, uint32_t block, uint32_t seq_idx,
                            uint32_t seq_generation)
{
    struct exchange *inner = delay_of(x)->inner;

    inner->ops->set_owner(inner, worker, block, seq_idx, seq_generation);
}

static void delay_beat(struct exchange *x, uint64_t now_ns, uint64_t progress)
{
    struct exchange *inner = delay_of(x)->inner;

    inner->ops->beat(inner, now_ns, progress);
}

static void delay_drain(struct exchange *x)
{
    struct exchange *inner = delay_of(x)->inner;

    inner->ops->drain(inner);
}

static void delay_free(struct exchange_delay *d)
{
    free(d->arrived);
    free(d->visible);
    free(d->hold);
    free(d->fresh);
    free(d);
}

static void delay_destroy(struct exchange *x)
{
    struct exchange_delay *d = delay_of(x);

    d->inner->ops->destroy(d->inner);
    delay_free(d);
}

static const struct exchange_ops delay_ops = {
    .name = "delay",
    .payload = delay_payload,
    .post = delay_post,
    .flush = delay_flush,
    .rouse = delay_rouse,
    .poll_done = delay_poll_done,
    .take = delay_take,
    .staging = delay_staging,
    .copy_out = delay_copy,
    .copy_in = delay_copy,
    .copy_done = delay_copy_done,
    .peer = delay_peer,
    .peer_pid = delay_peer_pid,
    .read_rate = delay_read_rate,
    .start_ns = delay_start_ns,
    .slot_release = delay_slot_release,
    .n_blocks = delay_n_blocks,
    .set_owner = delay_set_owner,
    .beat = delay_beat,
    .drain = delay_drain,
    .destroy = delay_destroy,
};

int exchange_delay_create(struct exchange **out, struct exchange *inner, uint32_t polls_max)
{
    struct exchange_delay *d = calloc(1, sizeof *d);
    uint32_t n = exchange_n_slots(inner) + 1;

    if (d == NULL)
        return -ENOMEM;
    d->base = *inner;
    d->base.ops = &delay_ops;
    d->base.poll_us = DELAY_POLL_US;
    d->inner = inner;
    d->polls_max = polls_max;
    d->arrived = calloc(n, sizeof *d->arrived);
    d->visible = calloc(n, sizeof *d->visible);
    d->hold = calloc(n, sizeof *d->hold);
    d->fresh = calloc(n, sizeof *d->fresh);
    if (d->arrived == NULL || d->visible == NULL || d->hold == NULL || d->fresh == NULL) {
        delay_free(d);
        return -ENOMEM;
    }
    *out = &d->base;
    return 0;
}
