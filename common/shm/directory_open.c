/* The directory's segment: layout, create, take over, attach.  See directory.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/invariant.h"
#include "common/base/round.h"
#include "common/shm/directory_entry.h"

enum { ENTRIES_MAX = 1 << 16, CTX_MAX = 1 << 20 };

/* Everything from n_entries, n_groups, ctx_max, block_tokens: for creator and attacher alike. */
static int place(struct directory_shared *s, uint64_t *total)
{
    uint64_t log_off, stride;

    if (s->n_entries == 0 || s->n_entries > ENTRIES_MAX || s->n_groups == 0 ||
        s->n_groups > KV_GROUPS_MAX || s->ctx_max == 0 || s->ctx_max > CTX_MAX ||
        s->block_tokens == 0 || s->block_tokens > CTX_MAX)
        return -EINVAL;
    s->blocks_max = (s->ctx_max + s->block_tokens - 1) / s->block_tokens;
    s->blocks_off = sizeof(struct directory_entry);
    log_off = round_up(s->blocks_off + (uint64_t)s->n_groups * s->blocks_max * 4, SHM_LINE);
    stride = round_up(log_off + ((uint64_t)s->ctx_max + 1) * 4, SHM_LINE);
    s->log_off = (uint32_t)log_off; /* below 64 MiB by the bounds above */
    s->entry_stride = (uint32_t)stride;
    s->entries_off = SHM_PAGE;
    *total = s->entries_off + s->n_entries * stride;
    return 0;
}

static void fill_spec(struct segment_spec *spec, char name[64], const char *dir,
                      uint32_t engine_idx)
{
    snprintf(name, 64, "dir-e%u", engine_idx);
    *spec = (struct segment_spec){.dir = dir,
                                  .name = name,
                                  .kind = SEGMENT_DIRECTORY,
                                  .layout_version = DIRECTORY_LAYOUT_VERSION,
                                  .numa_node = SEGMENT_ANY_NODE};
}

static void copy_layout(struct directory *d, const struct directory_shared *s)
{
    d->n_entries = s->n_entries;
    d->n_groups = s->n_groups;
    d->blocks_max = s->blocks_max;
    d->ctx_max = s->ctx_max;
    d->block_tokens = s->block_tokens;
    d->entry_stride = s->entry_stride;
    d->blocks_off = s->blocks_off;
    d->log_off = s->log_off;
    d->entries_off = s->entries_off;
    d->model_hash = s->model_hash;
    d->shared = (struct directory_shared *)(void *)d->segment.base;
    d->geometry_hash = d->shared->header.geometry_hash;
}

static bool same_layout(const struct directory_shared *a, const struct directory_shared *b)
{
    return a->n_entries == b->n_entries && a->n_groups == b->n_groups &&
           a->blocks_max == b->blocks_max && a->ctx_max == b->ctx_max &&
           a->block_tokens == b->block_tokens && a->entry_stride == b->entry_stride &&
           a->blocks_off == b->blocks_off && a->log_off == b->log_off &&
           a->entries_off == b->entries_off;
}

/* Copies the constants of the header; atomics have no use here. */
static void read_constants(struct directory_shared *out, const struct directory *d)
{
    const size_t skip = offsetof(struct directory_shared, n_entries);

    memset(out, 0, sizeof *out);
    memcpy((uint8_t *)out + skip, d->segment.base + skip, sizeof *out - skip);
}

static int adopt(struct directory *d, struct error *err)
{
    struct directory_shared found, expected;
    uint64_t total;

    read_constants(&found, d); /* a segment has a page at least */
    expected = found;
    if (place(&expected, &total) != 0 || !same_layout(&expected, &found))
        return error_set(err, -ESTALE, "%s: the layout contradicts itself", d->segment.path);
    if (total > d->segment.bytes)
        return error_set(err, -ESTALE, "%s: layout of %llu bytes, file of %llu", d->segment.path,
                         (unsigned long long)total, (unsigned long long)d->segment.bytes);
    copy_layout(d, &found);
    return 0;
}

static int attach(struct directory *d, const struct segment_spec *spec, bool writable,
                  struct error *err)
{
    int rc = segment_attach(&d->segment, spec, writable, err);

    if (rc != 0)
        return rc;
    rc = adopt(d, err);
    if (rc != 0)
        segment_detach(&d->segment);
    return rc;
}

static int create(struct directory *d, const struct segment_spec *spec,
                  const struct directory_shared *wanted, struct error *err)
{
    const size_t skip = offsetof(struct directory_shared, n_entries);
    int rc = segment_create(&d->segment, spec, err);

    if (rc != 0)
        return rc;
    memcpy(d->segment.base + skip, (const uint8_t *)wanted + skip, sizeof *wanted - skip);
    copy_layout(d, wanted);
    d->created = true;
    rc = segment_publish(&d->segment, err);
    if (rc != 0)
        segment_detach(&d->segment);
    return rc;
}

static int take_over(struct directory *d, const struct segment_spec *spec,
                     const struct directory_shared *wanted, struct error *err)
{
    struct directory_shared found;
    int rc = attach(d, spec, true, err);

    if (rc != 0)
        return rc;
    read_constants(&found, d);
    if (same_layout(&found, wanted) && found.model_hash == wanted->model_hash)
        return 0;
    segment_detach(&d->segment);
    return error_set(err, -ESTALE,
                     "%s: expected %u entries of %u tokens for model %016" PRIx64
                     ", found %u of %u for %016" PRIx64,
                     d->segment.path, wanted->n_entries, wanted->ctx_max, wanted->model_hash,
                     found.n_entries, found.ctx_max, found.model_hash);
}

int directory_open(struct directory *d, const char *dir, uint32_t engine_idx,
                   const struct directory_config *c, const struct kv_geometry *g, struct error *err)
{
    struct directory_shared wanted;
    struct segment_spec spec;
    struct error found;
    uint64_t total;
    char name[64];
    int rc;

    *d = DIRECTORY_NONE;
    fill_spec(&spec, name, dir, engine_idx);
    memset(&wanted, 0, sizeof wanted);
    wanted.n_entries = c->n_entries;
    wanted.n_groups = g->n_groups;
    wanted.ctx_max = c->ctx_max;
    wanted.block_tokens = g->block_tokens;
    wanted.model_hash = g->model_hash;
    if (place(&wanted, &total) != 0)
        return error_set(err, -EINVAL, "%s: %u entries of %u tokens: out of bounds", name,
                         c->n_entries, c->ctx_max);
    spec.geometry_hash = g->hash;
    rc = take_over(d, &spec, &wanted, &found);
    if (rc != 0) {
        rc = segment_make_room(&spec, rc, &found, &d->replaced, err);
        spec.bytes = total;
        if (rc == 0)
            rc = create(d, &spec, &wanted, err);
    }
    if (rc != 0)
        return rc;
    d->free_list = calloc(d->n_entries, sizeof *d->free_list);
    if (d->free_list == NULL) {
        directory_detach(d);
        return error_set(err, -ENOMEM, "%s: out of memory", name);
    }
    directory_rebuild_free(d);
    return 0;
}

int directory_attach(struct directory *d, const char *dir, uint32_t engine_idx, struct error *err)
{
    struct segment_spec spec;
    char name[64];

    *d = DIRECTORY_NONE;
    fill_spec(&spec, name, dir, engine_idx);
    return attach(d, &spec, false, err);
}

void directory_detach(struct directory *d)
{
    free(d->free_list);
    segment_detach(&d->segment);
    *d = DIRECTORY_NONE;
}
