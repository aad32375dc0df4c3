#include "common/shm/arena.h"

#include <errno.h>
#include <string.h>

#include "common/base/round.h"

/* Below that an alignment of 2 MiB would waste more than it wins. */
#define ARENA_HUGE_FROM (UINT64_C(16) << 20)

struct arena_place {
    uint64_t owners_off, blocks_off, total_bytes;
};

static struct arena_place place(uint64_t n_blocks, uint32_t block_bytes)
{
    uint64_t bytes = n_blocks * block_bytes; /* 32 bits each */
    uint64_t align = bytes >= ARENA_HUGE_FROM ? SHM_HUGE_PAGE : SHM_PAGE;
    struct arena_place p;

    p.owners_off = round_up(sizeof(struct arena_shared), SHM_PAGE);
    p.blocks_off = round_up(p.owners_off + n_blocks * sizeof(uint64_t), align);
    p.total_bytes = p.blocks_off + bytes;
    return p;
}

uint32_t arena_blocks_for(const struct kv_geometry *g, uint64_t bytes)
{
    uint64_t n = bytes / g->block_bytes;

    n = n > UINT32_MAX ? UINT32_MAX : n;
    while (n > 0 && place(n, g->block_bytes).total_bytes > bytes) {
        uint64_t over = place(n, g->block_bytes).total_bytes - bytes;
        uint64_t drop = over / g->block_bytes + 1;
        n = drop < n ? n - drop : 0;
    }
    return (uint32_t)n;
}

static void fill_spec(struct segment_spec *spec, char name[64], const char *dir,
                      uint32_t engine_idx, uint32_t worker_idx)
{
    snprintf(name, 64, "arena-e%u-w%u", engine_idx, worker_idx);
    *spec = (struct segment_spec){.dir = dir,
                                  .name = name,
                                  .kind = SEGMENT_ARENA,
                                  .layout_version = ARENA_LAYOUT_VERSION,
                                  .numa_node = SEGMENT_ANY_NODE,
                                  .want_huge = true};
}

static void set_addresses(struct arena *a, const struct arena_place *p)
{
    a->shared = (struct arena_shared *)(void *)a->segment.base;
    a->owners = (_Atomic uint64_t *)(void *)(a->segment.base + p->owners_off);
    a->blocks = a->segment.base + p->blocks_off;
}

/* Copies what the header says, each field once, and checks the copies before anything is derived
 * from them: the header may change under our eyes. */
static int adopt(struct arena *a, struct error *err)
{
    const struct arena_shared *s = (const struct arena_shared *)(const void *)a->segment.base;
    uint64_t n_blocks, owners_off, blocks_off;
    struct arena_place p;
    const char *field;

    if (a->segment.bytes < sizeof *s)
        return error_set(err, -ESTALE, "%s: too short for an arena", a->segment.path);
    a->geometry = s->geometry;
    n_blocks = s->n_blocks;
    owners_off = s->owners_off;
    blocks_off = s->blocks_off;
    if (geometry_check(&a->geometry, &field) != 0)
        return error_set(err, -ESTALE, "%s: geometry: bad %s", a->segment.path, field);
    if (n_blocks == 0 || n_blocks > UINT32_MAX)
        return error_set(err, -ESTALE, "%s: n_blocks: found %llu", a->segment.path,
                         (unsigned long long)n_blocks);
    a->n_blocks = (uint32_t)n_blocks;
    p = place(n_blocks, a->geometry.block_bytes);
    if (owners_off != p.owners_off || blocks_off != p.blocks_off ||
        p.total_bytes > a->segment.bytes)
        return error_set(err, -ESTALE, "%s: expected %llu bytes for %u blocks, found %llu",
                         a->segment.path, (unsigned long long)p.total_bytes, a->n_blocks,
                         (unsigned long long)a->segment.bytes);
    set_addresses(a, &p);
    return 0;
}

static int attach(struct arena *a, const struct segment_spec *spec, bool writable,
                  struct error *err)
{
    int rc = segment_attach(&a->segment, spec, writable, err);

    if (rc != 0)
        return rc;
    rc = adopt(a, err);
    if (rc != 0)
        segment_detach(&a->segment);
    return rc;
}

static int take_over(struct arena *a, const struct segment_spec *spec, uint32_t n_blocks,
                     struct error *err)
{
    int rc = attach(a, spec, true, err);

    if (rc == 0 && a->n_blocks != n_blocks) {
        rc = error_set(err, -ESTALE, "%s: expected %u blocks, found %u", a->segment.path, n_blocks,
                       a->n_blocks);
        segment_detach(&a->segment);
    }
    return rc;
}

static int create(struct arena *a, const struct segment_spec *spec, const struct kv_geometry *g,
                  uint32_t n_blocks, struct error *err)
{
    struct arena_place p = place(n_blocks, g->block_bytes);
    int rc = segment_create(&a->segment, spec, err);

    if (rc != 0)
        return rc;
    set_addresses(a, &p);
    a->shared->n_blocks = n_blocks;
    a->shared->owners_off = p.owners_off;
    a->shared->blocks_off = p.blocks_off;
    a->shared->geometry = *g;
    a->geometry = *g;
    a->n_blocks = n_blocks;
    a->created = true;
    rc = segment_publish(&a->segment, err);
    if (rc != 0)
        segment_detach(&a->segment);
    return rc;
}

int arena_open(struct arena *a, const char *dir, uint32_t engine_idx, uint32_t worker_idx,
               const struct kv_geometry *g, uint32_t n_blocks, bool reuse, int numa_node,
               struct error *err)
{
    struct segment_spec spec;
    struct error found;
    char name[64];
    int rc;

    *a = ARENA_NONE;
    fill_spec(&spec, name, dir, engine_idx, worker_idx);
    if (n_blocks == 0)
        return error_set(err, -EINVAL, "%s: not one block of %u bytes fits: raise worker.arena_mb",
                         name, g->block_bytes);
    spec.geometry_hash = g->hash;
    if (reuse)
        rc = take_over(a, &spec, n_blocks, &found);
    else /* whatever is there; the table's text says why */
        rc = error_set(&found, -ESTALE, "%s", "");
    if (rc == 0)
        return 0;
    rc = segment_make_room(&spec, rc, &found, &a->replaced, err);
    if (rc != 0)
        return rc;
    spec.bytes = place(n_blocks, g->block_bytes).total_bytes;
    spec.numa_node = numa_node;
    return create(a, &spec, g, n_blocks, err);
}

int arena_attach(struct arena *a, const char *dir, uint32_t engine_idx, uint32_t worker_idx,
                 bool writable, struct error *err)
{
    struct segment_spec spec;
    char name[64];

    *a = ARENA_NONE;
    fill_spec(&spec, name, dir, engine_idx, worker_idx);
    return attach(a, &spec, writable, err);
}

void arena_detach(struct arena *a)
{
    segment_detach(&a->segment);
    *a = ARENA_NONE;
}

void arena_set_owner(struct arena *a, uint32_t idx, uint32_t seq_idx, uint32_t seq_gen)
{
    invariant(idx < a->n_blocks);
    atomic_store_explicit(&a->owners[idx], (uint64_t)seq_gen << 32 | seq_idx, memory_order_relaxed);
}

uint64_t arena_owner(const struct arena *a, uint32_t idx)
{
    invariant(idx < a->n_blocks);
    return atomic_load_explicit(&a->owners[idx], memory_order_relaxed);
}

struct kv_view arena_view(const struct arena *a, uint32_t layer, const uint32_t *table,
                          uint32_t n_blocks)
{
    invariant(layer < a->geometry.n_layers);
    return (struct kv_view){.base = a->blocks,
                            .table = table,
                            .block_bytes = a->geometry.block_bytes,
                            .block_tokens = a->geometry.block_tokens,
                            .n_blocks = n_blocks,
                            .type = a->geometry.type,
                            .layer = &a->geometry.layer[layer]};
}
