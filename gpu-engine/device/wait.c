#include "gpu-engine/device/wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A worker is on time until it has taken so many times what was predicted: jobs of tens of
 * microseconds vary that much with what the caches hold. */
enum { PATIENCE = 2 };

int wait_book_init(struct wait_book *b, uint32_t n_slots, uint32_t slots_per_worker)
{
    uint32_t n_workers = slots_per_worker > 0 ? n_slots / slots_per_worker : 0;

    b->n_slots = n_slots;
    b->slots_per_worker = slots_per_worker;
    b->slots = calloc((size_t)n_slots + 1, sizeof *b->slots);
    b->workers = calloc((size_t)n_workers + 1, sizeof *b->workers);
    return b->slots == NULL || b->workers == NULL ? -ENOMEM : 0;
}

void wait_book_fini(struct wait_book *b)
{
    free(b->slots);
    free(b->workers);
    memset(b, 0, sizeof *b);
}

uint64_t wait_job_ns(const struct device_pace *pace, double kv_bytes)
{
    return pace->ns_per_byte > 0 ? (uint64_t)(pace->fixed_ns + kv_bytes * pace->ns_per_byte) : 0;
}

static bool is_out(const struct pick_slot *slot, uint32_t done)
{
    return slot->state == PICK_SLOT_POSTED && slot->generation != done;
}

void wait_posted(struct wait_book *b, uint32_t slot, uint64_t job_ns)
{
    /* Not predicted: expected long ago. */
    b->slots[slot] = (struct wait_slot){.job_ns = job_ns, .expected_ns = job_ns == 0};
    b->workers[slot / b->slots_per_worker].fresh_ns += job_ns;
}

/* What a worker has in hand beside the jobs of the flush. */
struct older {
    uint64_t sum_ns, longest_ns;
    uint32_t n;
};

static struct older add_older(const struct wait_book *b, uint32_t first,
                              const struct pick_slot *slots, const uint32_t *done)
{
    struct older o = {.n = 0};

    for (uint32_t i = first; i < first + b->slots_per_worker; i++) {
        uint64_t ns = b->slots[i].job_ns;

        if (!is_out(&slots[i], done[i]) || b->slots[i].expected_ns == 0)
            continue;
        o.n++;
        o.sum_ns += ns;
        o.longest_ns = ns > o.longest_ns ? ns : o.longest_ns;
    }
    return o;
}

static void flush_worker(struct wait_book *b, uint32_t worker, const struct pick_slot *slots,
                         const uint32_t *done, uint64_t now_ns)
{
    struct wait_worker *w = &b->workers[worker];
    uint32_t first = worker * b->slots_per_worker;
    const struct older o = add_older(b, first, slots, done);
    uint64_t ns = o.longest_ns + w->fresh_ns;
    bool late = o.n > 0 && w->due_ns < now_ns;

    for (uint32_t i = first; i < first + b->slots_per_worker; i++) {
        if (slots[i].state != PICK_SLOT_POSTED || b->slots[i].expected_ns != 0)
            continue;
        b->slots[i].expected_ns = now_ns + ns;
        b->slots[i].due_ns = now_ns + PATIENCE * ns;
    }
    if (!late)
        w->due_ns = now_ns + PATIENCE * (o.sum_ns + w->fresh_ns);
    w->fresh_ns = 0;
}

void wait_flushed(struct wait_book *b, const struct pick_slot *slots, const uint32_t *done,
                  uint64_t now_ns)
{
    for (uint32_t w = 0; w * b->slots_per_worker < b->n_slots; w++) {
        if (b->workers[w].fresh_ns > 0)
            flush_worker(b, w, slots, done, now_ns);
    }
}

/* On time, and expected before the end: until then. */
static uint64_t hoped_until(const struct wait_ask *ask, uint32_t slot)
{
    const struct wait_slot *s = &ask->book->slots[slot];
    const struct wait_worker *w = &ask->book->workers[slot / ask->book->slots_per_worker];
    uint64_t due = s->due_ns < w->due_ns ? s->due_ns : w->due_ns;

    if (s->expected_ns > ask->end_ns)
        return ask->now_ns;
    return due < ask->end_ns ? due : ask->end_ns;
}

uint64_t wait_until(const struct wait_ask *ask)
{
    uint64_t until = ask->now_ns;
    uint32_t n_back = 0;

    for (uint32_t i = 0; i < ask->book->n_slots; i++) {
        const struct pick_slot *slot = &ask->slots[i];

        if (slot->state != PICK_SLOT_POSTED || slot->layer != ask->layer ||
            slot->age > ask->age_max || (ask->batches >> slot->batch & 1) == 0)
            continue;
        if (is_out(slot, ask->done[i])) {
            uint64_t to = hoped_until(ask, i);
            until = to > until ? to : until;
        } else {
            n_back++;
        }
    }
    return n_back < ask->want ? until : ask->now_ns;
}
