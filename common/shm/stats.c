#include "common/shm/stats.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/base/invariant.h"
#include "common/base/process.h"

static uint32_t round_line(uint64_t n)
{
    return (uint32_t)((n + SHM_LINE - 1) / SHM_LINE * SHM_LINE);
}

struct stats_place {
    uint32_t values_off, names_off, total_bytes;
};

static struct stats_place place(uint32_t n)
{
    struct stats_place p;

    p.values_off = sizeof(struct stats_shared);
    p.names_off = round_line(p.values_off + (uint64_t)n * sizeof(uint64_t));
    p.total_bytes = p.names_off + n * (uint32_t)sizeof(struct stats_name);
    return p;
}

static void fill_spec(struct segment_spec *spec, char name[64], const char *dir,
                      const char *program, uint32_t index)
{
    snprintf(name, 64, "stats-%s-%u", program, index);
    *spec = (struct segment_spec){.dir = dir,
                                  .name = name,
                                  .kind = SEGMENT_STATS,
                                  .layout_version = STATS_LAYOUT_VERSION,
                                  .numa_node = SEGMENT_ANY_NODE};
}

static struct stats_name *names(const struct stats_page *p)
{
    return (struct stats_name *)(void *)(p->segment.base + place(p->n).names_off);
}

static void set_addresses(struct stats_page *p, uint32_t n)
{
    p->n = n;
    p->shared = (struct stats_shared *)(void *)p->segment.base;
    p->values = (_Atomic uint64_t *)(void *)(p->segment.base + place(n).values_off);
}

static void fill_names(struct stats_page *p, const struct stats_row *rows)
{
    for (uint32_t i = 0; i < p->n; i++) {
        struct stats_name *name = &names(p)[i];
        invariant(strlen(rows[i].name) < sizeof name->name);
        invariant(strlen(rows[i].doc) < sizeof name->doc);
        snprintf(name->name, sizeof name->name, "%s", rows[i].name);
        snprintf(name->doc, sizeof name->doc, "%s", rows[i].doc);
        name->kind = (uint32_t)rows[i].kind;
    }
}

int stats_create(struct stats_page *p, const char *dir, const char *program, uint32_t index,
                 const struct stats_row *rows, uint32_t n, struct error *err)
{
    struct segment_spec spec;
    char name[64];
    int rc;

    invariant(n >= 1 && n <= STATS_MAX);
    *p = STATS_NONE;
    fill_spec(&spec, name, dir, program, index);
    spec.bytes = place(n).total_bytes;
    rc = segment_create(&p->segment, &spec, err);
    if (rc == -ENOSPC && segment_retire(dir, name, SEGMENT_ROLE_ENGINE) == 0)
        rc = segment_create(&p->segment, &spec, err); /* where our predecessor's page was */
    if (rc != 0)
        return rc;
    set_addresses(p, n);
    p->shared->n = n;
    p->shared->values_off = place(n).values_off;
    p->shared->names_off = place(n).names_off;
    p->shared->pid = (uint32_t)getpid();
    process_start_ticks(getpid(), &p->shared->start_ticks);
    snprintf(p->shared->program, sizeof p->shared->program, "%s", program);
    fill_names(p, rows);
    rc = segment_publish(&p->segment, err);
    if (rc != 0)
        segment_detach(&p->segment);
    return rc;
}

int stats_attach(struct stats_page *p, const char *dir, const char *program, uint32_t index,
                 struct error *err)
{
    const struct stats_shared *s;
    struct segment_spec spec;
    char name[64];
    uint32_t n;
    int rc;

    *p = STATS_NONE;
    fill_spec(&spec, name, dir, program, index);
    rc = segment_attach(&p->segment, &spec, false, err);
    if (rc != 0)
        return rc;
    s = (const struct stats_shared *)(const void *)p->segment.base;
    n = s->n;
    if (n == 0 || n > STATS_MAX || s->values_off != place(n).values_off ||
        s->names_off != place(n).names_off || place(n).total_bytes > p->segment.bytes) {
        rc = error_set(err, -ESTALE, "%s: the layout contradicts itself", p->segment.path);
        segment_detach(&p->segment);
        return rc;
    }
    set_addresses(p, n);
    return 0;
}

void stats_detach(struct stats_page *p)
{
    segment_detach(&p->segment);
    *p = STATS_NONE;
}

void stats_foreach(const struct stats_page *p, stats_visit *visit, void *arg)
{
    for (uint32_t i = 0; i < p->n; i++) {
        struct stats_name copy = names(p)[i];
        copy.name[sizeof copy.name - 1] = '\0'; /* another process wrote it */
        copy.doc[sizeof copy.doc - 1] = '\0';
        visit(arg, &copy, stats_get(p, i));
    }
}
