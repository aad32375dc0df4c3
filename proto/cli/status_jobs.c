#include "proto/cli/status_jobs.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/shm/directory.h"
#include "common/shm/job_table.h"

enum { READ_TRIES = 4 };

/* ---- Job slots ------------------------------------------------------------------------------- */

static const char *job_state_text(enum job_state state)
{
    switch (state) {
    case JOB_FREE:
        return "free";
    case JOB_POSTED:
        return "posted";
    case JOB_DONE:
        return "done";
    }
    return "damaged";
}

/* Positive in the future. */
static double ms_until(uint64_t then_ns, uint64_t now_ns)
{
    return (double)(int64_t)(then_ns - now_ns) / NS_PER_MS;
}

static json_t *slot_json(uint32_t idx, uint64_t word, const struct job_slot *s, uint64_t now_ns)
{
    json_t *deadline =
        s->deadline_ns != 0 ? json_real(ms_until(s->deadline_ns, now_ns)) : json_null();

    return json_pack(
        "{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o}", "slot", (int)idx, "state",
        job_state_text(job_word_state(word)), "generation", (json_int_t)job_word_generation(word),
        "epoch", (json_int_t)job_word_epoch(word), "sequence", (json_int_t)s->seq_idx,
        "sequence_generation", (json_int_t)s->seq_gen, "layer", (json_int_t)s->layer, "pos",
        (json_int_t)s->pos, "n_q", (json_int_t)s->n_q, "sweep", (json_int_t)s->sweep, "age_ms",
        -ms_until(s->posted_ns, now_ns), "deadline_ms", deadline);
}

/* The fields belong to the word if the word is the same before and after they were read; a slot
 * that is written all the time is shown as it was last.  NULL: FREE. */
static json_t *read_slot(const struct job_table *t, uint32_t idx)
{
    const struct job_slot *s = &t->slots[idx];
    struct job_slot copy;
    uint64_t word, again;

    for (int i = 0; i < READ_TRIES; i++) {
        word = atomic_load_explicit(&s->word, memory_order_acquire);
        if (job_word_state(word) == JOB_FREE)
            return NULL;
        memcpy(&copy, s, sizeof copy);
        atomic_thread_fence(memory_order_acquire);
        again = atomic_load_explicit(&s->word, memory_order_relaxed);
        if (again == word)
            break;
    }
    return slot_json(idx, word, &copy, clock_now_ns());
}

static json_int_t counter(const _Atomic uint64_t *c)
{
    return (json_int_t)atomic_load_explicit(c, memory_order_relaxed);
}

static json_t *table_json(const struct job_table *t, uint32_t engine, uint32_t worker)
{
    const struct job_table_shared *s = t->shared;
    uint64_t beat_ns = atomic_load_explicit(&s->alive_ns, memory_order_relaxed);
    json_t *slots = json_array();
    uint32_t n_free = 0;

    for (uint32_t i = 0; i < t->layout.n_slots; i++) {
        json_t *slot = read_slot(t, i);

        n_free += slot == NULL;
        if (slot != NULL)
            json_array_append_new(slots, slot);
    }
    return json_pack("{s:i, s:i, s:I, s:I, s:I, s:f, s:I, s:I, s:i, s:o}", "engine", (int)engine,
                     "worker", (int)worker, "engine_epoch",
                     (json_int_t)atomic_load(&s->requested_epoch), "acked_epoch",
                     (json_int_t)atomic_load(&s->acked_epoch), "worker_pid",
                     (json_int_t)atomic_load(&s->worker_pid), "beat_ms",
                     -ms_until(beat_ns, clock_now_ns()), "posted", counter(&s->posted), "done",
                     counter(&s->jobs_done), "n_free", (int)n_free, "slots", slots);
}

/* ---- Directory ------------------------------------------------------------------------------- */

static const char *sequence_state_text(enum directory_state state)
{
    switch (state) {
    case DIRECTORY_FREE:
        return "free";
    case DIRECTORY_DEVICE:
        return "device";
    case DIRECTORY_FILLING:
        return "filling";
    case DIRECTORY_RESIDENT:
        return "resident";
    case DIRECTORY_LEAVING:
        return "leaving";
    }
    return "damaged";
}

static enum directory_state group_state(const struct directory_entry *e, uint32_t group)
{
    return (enum directory_state)atomic_load_explicit(&e->state[group], memory_order_acquire);
}

/* What DEVICE leaves behind in worker and blocks names nothing. */
static json_t *group_json(const struct directory_entry *e, uint32_t group)
{
    enum directory_state state = group_state(e, group);
    bool placed = state != DIRECTORY_FREE && state != DIRECTORY_DEVICE;
    json_int_t worker = (json_int_t)atomic_load(&e->worker[group]);
    json_int_t blocks = (json_int_t)atomic_load(&e->n_blocks[group]);

    return json_pack("{s:s, s:o, s:I}", "state", sequence_state_text(state), "worker",
                     placed ? json_integer(worker) : json_null(), "blocks",
                     placed ? blocks : (json_int_t)0);
}

static json_t *sequence_json(const struct directory *d, uint32_t idx)
{
    const struct directory_entry *e = directory_entry(d, idx);
    json_t *groups = json_array();
    char request[2 * sizeof e->request_id + 1];

    for (uint32_t g = 0; g < d->n_groups; g++)
        json_array_append_new(groups, group_json(e, g));
    for (size_t i = 0; i < sizeof e->request_id; i++)
        snprintf(request + 2 * i, 3, "%02x", e->request_id[i]);
    return json_pack("{s:i, s:I, s:s, s:I, s:I, s:I, s:o}", "sequence", (int)idx, "generation",
                     (json_int_t)atomic_load(&e->generation), "request", request, "committed",
                     (json_int_t)atomic_load(&e->committed), "prompt_tokens",
                     (json_int_t)e->prompt_len, "slot", (json_int_t)e->slot, "groups", groups);
}

static bool is_free(const struct directory *d, uint32_t idx)
{
    for (uint32_t g = 0; g < d->n_groups; g++) {
        if (group_state(directory_entry(d, idx), g) != DIRECTORY_FREE)
            return false;
    }
    return true;
}

static json_t *directory_json(const struct directory *d, uint32_t engine)
{
    json_t *sequences = json_array();
    uint32_t n_free = 0;

    for (uint32_t i = 0; i < d->n_entries; i++) {
        if (is_free(d, i))
            n_free++;
        else
            json_array_append_new(sequences, sequence_json(d, i));
    }
    return json_pack("{s:i, s:i, s:o}", "engine", (int)engine, "n_free", (int)n_free, "sequences",
                     sequences);
}

/* ---- All segments ---------------------------------------------------------------------------- */

struct look {
    const char *dir;
    json_t *tables, *directories, *unreadable;
};

static void add_unreadable(struct look *l, const char *name, const struct error *why)
{
    json_array_append_new(l->unreadable,
                          json_pack("{s:s, s:s}", "segment", name, "reason", why->text));
}

static void add_table(struct look *l, const char *name, uint32_t engine, uint32_t worker)
{
    struct job_table t;
    struct error why;

    if (job_table_inspect(&t, l->dir, engine, worker, &why) != 0) {
        add_unreadable(l, name, &why);
        return;
    }
    json_array_append_new(l->tables, table_json(&t, engine, worker));
    job_table_detach(&t);
}

static void add_directory(struct look *l, const char *name, uint32_t engine)
{
    struct directory d;
    struct error why;

    if (directory_attach(&d, l->dir, engine, &why) != 0) {
        add_unreadable(l, name, &why);
        return;
    }
    json_array_append_new(l->directories, directory_json(&d, engine));
    directory_detach(&d);
}

static void add_segment(struct look *l, const char *name)
{
    uint32_t engine, worker;
    char canonical[64];

    if (sscanf(name, "jobs-e%u-w%u", &engine, &worker) == 2) {
        snprintf(canonical, sizeof canonical, "jobs-e%u-w%u", engine, worker);
        if (strcmp(name, canonical) == 0)
            add_table(l, name, engine, worker);
    } else if (sscanf(name, "dir-e%u", &engine) == 1) {
        snprintf(canonical, sizeof canonical, "dir-e%u", engine);
        if (strcmp(name, canonical) == 0)
            add_directory(l, name, engine);
    }
}

json_t *status_jobs_json(const struct omni_config *config, bool *found)
{
    struct look l = {
        .tables = json_array(), .directories = json_array(), .unreadable = json_array()};
    char dir[SEGMENT_PATH_MAX];
    struct dirent **names = NULL;
    int n = 0;

    if (segment_dir_resolve(config->shm_dir, config->group_name, dir, sizeof dir) == 0)
        n = scandir(dir, &names, NULL, versionsort);
    l.dir = dir;
    for (int i = 0; i < n; i++) {
        add_segment(&l, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    *found =
        json_array_size(l.tables) + json_array_size(l.directories) + json_array_size(l.unreadable) >
        0;
    return json_pack("{s:o, s:o, s:o}", "tables", l.tables, "directories", l.directories,
                     "unreadable", l.unreadable);
}
