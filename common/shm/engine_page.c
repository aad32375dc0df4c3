#include "common/shm/engine_page.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/base/invariant.h"
#include "common/base/process.h"

enum { OPEN_TRIES = 8 }; /* each but the last was lost to another engine or a clean-up */

static void fill_spec(struct segment_spec *spec, char name[64], const char *dir,
                      uint32_t engine_idx)
{
    snprintf(name, 64, "engine-e%u", engine_idx);
    *spec = (struct segment_spec){.dir = dir,
                                  .name = name,
                                  .kind = SEGMENT_ENGINE,
                                  .layout_version = ENGINE_LAYOUT_VERSION,
                                  .bytes = sizeof(struct engine_shared),
                                  .numa_node = SEGMENT_ANY_NODE};
}

static void set_shared(struct engine_page *p)
{
    p->shared = (struct engine_shared *)(void *)p->segment.base;
}

static int create(struct engine_page *p, const struct segment_spec *spec, struct error *err)
{
    int rc = segment_create(&p->segment, spec, err);

    if (rc == 0)
        rc = segment_publish_first(&p->segment, err);
    if (rc != 0)
        segment_detach(&p->segment);
    return rc;
}

/* The page does not fit: away with it, unless the engine that made it still runs. */
static int retire(struct engine_page *p, const struct segment_spec *spec, struct error *err)
{
    int rc = segment_retire(spec->dir, spec->name, SEGMENT_ROLE_ENGINE);

    if (rc == -EBUSY)
        return error_set(err, rc, "an engine of this index runs already; its page differs: %s",
                         p->replaced.text);
    return rc == 0 ? 0 : error_set(err, rc, "%s: cannot be removed: %s", spec->name, strerror(-rc));
}

/* One look: attach or create.  -EAGAIN: somebody was faster, look again. */
static int attach_or_create(struct engine_page *p, const struct segment_spec *spec,
                            struct error *err)
{
    int rc = segment_attach(&p->segment, spec, true, err);

    if (rc == -ESTALE || rc == -EAGAIN) {
        p->replaced = *err;
        rc = retire(p, spec, err);
        return rc == 0 ? -EAGAIN : rc;
    }
    if (rc == -ENOENT)
        rc = create(p, spec, err);
    return rc == -EEXIST ? -EAGAIN : rc;
}

static int take_role(struct engine_page *p, uint32_t engine_idx, struct error *err)
{
    set_shared(p);
    if (segment_role_lock(&p->segment, SEGMENT_ROLE_ENGINE) != 0)
        return error_set(err, -EBUSY, "engine %u runs already, as pid %u", engine_idx,
                         atomic_load_explicit(&p->shared->pid, memory_order_acquire)); /* E1 */
    return segment_is_current(&p->segment) ? 0 : -EAGAIN;
}

int engine_page_open(struct engine_page *p, const char *dir, uint32_t engine_idx, struct error *err)
{
    struct error own;
    struct segment_spec spec;
    char name[64];
    int rc = -EAGAIN;

    err = err != NULL ? err : &own; /* its text is wanted here */
    p->replaced.text[0] = '\0';
    fill_spec(&spec, name, dir, engine_idx);
    for (int i = 0; rc == -EAGAIN && i < OPEN_TRIES; i++) {
        rc = attach_or_create(p, &spec, err);
        if (rc != 0)
            continue;
        rc = take_role(p, engine_idx, err);
        if (rc != 0)
            engine_page_detach(p);
    }
    return rc;
}

void engine_page_enter(struct engine_page *p, uint32_t epoch, uint64_t now_ns)
{
    struct engine_shared *e = p->shared;
    uint64_t ticks = 0;

    invariant(epoch > engine_page_epoch(p));
    process_start_ticks(getpid(), &ticks);
    atomic_store_explicit(&e->done_bell.sleeping, 0, memory_order_relaxed);
    atomic_store_explicit(&e->alive_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&e->start_ticks, ticks, memory_order_relaxed);
    atomic_store_explicit(&e->header.epoch, epoch, memory_order_relaxed);
    atomic_store_explicit(&e->epoch, epoch, memory_order_release); /* N1, pairs with N2 */
    /* E1: release: whoever acquires the pid sees its start time and epoch. */
    atomic_store_explicit(&e->pid, (uint32_t)getpid(), memory_order_release);
}

int engine_page_attach(struct engine_page *p, const char *dir, uint32_t engine_idx,
                       struct error *err)
{
    struct segment_spec spec;
    char name[64];
    int rc;

    fill_spec(&spec, name, dir, engine_idx);
    rc = segment_attach(&p->segment, &spec, true, err);
    if (rc == 0)
        set_shared(p);
    return rc;
}

void engine_page_detach(struct engine_page *p)
{
    segment_detach(&p->segment);
    p->shared = NULL;
}

uint32_t engine_page_epoch(const struct engine_page *p)
{
    /* N2: acquire, pairs with N1 in engine_page_enter. */
    return atomic_load_explicit(&p->shared->epoch, memory_order_acquire);
}

void engine_page_beat(struct engine_page *p, uint64_t now_ns, uint64_t progress)
{
    atomic_store_explicit(&p->shared->progress, progress, memory_order_relaxed);
    atomic_store_explicit(&p->shared->alive_ns, now_ns, memory_order_relaxed);
}
