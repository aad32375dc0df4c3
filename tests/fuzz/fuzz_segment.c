/* libFuzzer target: a segment that somebody has written over.  One of each kind is made, its bytes
 * are changed as the input says, and it is attached as a worker, an engine's successor or a tool
 * would: refused with a reason, or whatever is then read of it stays inside the mapping.
 *
 * Input: kind, then changes of 7 bytes: offset (3), length 1..4 (by the top bits of the offset's last
 * byte), value (4). */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/invariant.h"
#include "common/shm/arena.h"
#include "common/shm/directory.h"
#include "common/shm/engine_page.h"
#include "common/shm/job_table.h"
#include "common/shm/job_worker.h"
#include "common/shm/stats.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_BLOCKS = 12, N_ENTRIES = 3, N_KINDS = 5, CHANGE_BYTES = 7, SEGMENT_BYTES_MAX = 1 << 19 };

static const char *const names[N_KINDS] = {"engine-e0", "jobs-e0-w0", "arena-e0-w0", "dir-e0",
                                           "stats-fuzz-0"};
static char folder[64];
static uint8_t *templates[N_KINDS];
static size_t template_bytes[N_KINDS];
static uint64_t sink; /* what was read went somewhere */

/* ---- The segments as they should be ---------------------------------------------------------- */

static void make_geometry(struct kv_geometry *g)
{
    const struct kv_layer_spec layer = {.attention = KV_ATTENTION_FULL,
                                        .n_heads = 2,
                                        .n_kv_heads = 1,
                                        .dk = 16,
                                        .dv = 16,
                                        .scale = 1};
    const struct kv_geometry_config config = {
        .type = KV_TYPE_F16, .block_tokens = 32, .n_groups = 1, .n_ranks = 1, .model_hash = 77};
    const char *field;

    invariant(geometry_init(g, &config, &layer, 1, &field) == 0);
}

static void make_directory(const struct kv_geometry *g)
{
    const struct directory_config config = {.n_entries = N_ENTRIES, .ctx_max = 100};
    const struct sequence_info info = {.prompt = (const uint32_t[]){4, 5, 6}, .prompt_len = 3};
    struct directory d = DIRECTORY_NONE;
    struct sequence_ref ref;
    struct error err;

    invariant(directory_open(&d, folder, 0, &config, g, &err) == 0);
    directory_clear(&d);
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t blocks[] = {3 + 2 * i, 4 + 2 * i};

        invariant(directory_acquire(&d, &info, &ref) == 0);
        directory_log_token(&d, ref, 3, 9);
        directory_commit(&d, ref, 3);
        directory_set_state(&d, ref, 0, DIRECTORY_FILLING);
        directory_set_blocks(&d, ref, 0, 0, blocks, 2);
        directory_set_state(&d, ref, 0, DIRECTORY_RESIDENT);
    }
    directory_detach(&d);
}

static void make_segments(void)
{
    static const struct stats_row rows[] = {{"one", STATS_COUNTER, "a counter"},
                                            {"two", STATS_GAUGE, "a gauge"}};
    const struct job_table_config jobs = {.n_slots = 4, .n_q_max = 1, .element = JOB_ELEMENT_F32};
    struct engine_page page = {.segment = SEGMENT_NONE};
    struct job_table table = JOB_TABLE_NONE;
    struct stats_page stats = STATS_NONE;
    struct arena arena = ARENA_NONE;
    struct kv_geometry g;
    struct error err;

    make_geometry(&g);
    invariant(engine_page_open(&page, folder, 0, &err) == 0);
    engine_page_enter(&page, 1, 1);
    invariant(job_table_open(&table, folder, 0, 0, &jobs, &g, SEGMENT_ANY_NODE, &err) == 0);
    invariant(arena_open(&arena, folder, 0, 0, &g, N_BLOCKS, false, SEGMENT_ANY_NODE, &err) == 0);
    invariant(stats_create(&stats, folder, "fuzz", 0, rows, 2, &err) == 0);
    make_directory(&g);
    engine_page_detach(&page);
    job_table_detach(&table);
    arena_detach(&arena);
    stats_detach(&stats);
}

static void keep_templates(void)
{
    static uint8_t buffer[SEGMENT_BYTES_MAX];

    for (int i = 0; i < N_KINDS; i++) {
        char path[128];

        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
            (void)fprintf(stderr, "fuzz_segment: %s is not there\n", path);
        invariant(fd >= 0);
        ssize_t n = read(fd, buffer, sizeof buffer);

        close(fd);
        invariant(n > 0 && n < (ssize_t)sizeof buffer);
        templates[i] = malloc((size_t)n);
        invariant(templates[i] != NULL);
        memcpy(templates[i], buffer, (size_t)n);
        template_bytes[i] = (size_t)n;
    }
}

static void remove_all(void)
{
    for (int i = 0; i < N_KINDS; i++) {
        char path[128];

        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
        free(templates[i]);
    }
    (void)rmdir(folder);
}

static void set_up(void)
{
    struct error err;

    (void)snprintf(folder, sizeof folder, "/dev/shm/omni-fuzz-%d", (int)getpid());
    invariant(segment_dir_prepare(folder, &err) == 0);
    make_segments();
    keep_templates();
    invariant(atexit(remove_all) == 0);
}

/* ---- What is read of one that was attached --------------------------------------------------- */

static void read_bytes(const void *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sink += ((const volatile uint8_t *)at)[i];
}

static void use_directory(const struct directory *d)
{
    uint32_t refs[N_BLOCKS], verdict[1024], n_blocks[] = {N_BLOCKS};
    uint32_t *const all_refs[] = {refs};
    struct directory_usage usage = {
        .n_workers = 1, .n_blocks = n_blocks, .refs = all_refs, .verdict = verdict};
    struct directory_table table;

    if (d->n_entries > 1024)
        return;
    sink += directory_scan(d, &usage, NULL, NULL);
    for (uint32_t i = 0; i < d->n_entries; i++) {
        struct sequence_ref ref = {.idx = i, .gen = directory_entry(d, i)->generation};

        if (ref.gen != 0 && directory_table(d, ref, 0, 32, &table) == 0)
            read_bytes(table.blocks, table.n_blocks * sizeof *table.blocks);
    }
}

static void use_arena(const struct arena *a)
{
    for (uint32_t b = 0; b < a->n_blocks; b++) {
        sink += arena_owner(a, b);
        read_bytes(arena_block(a, b), a->geometry.block_bytes);
    }
}

static void use_jobs(struct bell_shared *bell)
{
    struct job_table t = JOB_TABLE_NONE;
    struct error err = {""};
    struct job job;

    if (job_table_attach(&t, folder, 0, 0, bell, &err) != 0) {
        invariant(err.text[0] != '\0');
        return;
    }
    for (uint32_t i = 0; i < 2 * t.layout.n_slots && job_worker_next(&t, &job); i++)
        (void)job_worker_complete(&t, &job, 1, 2, 0);
    read_bytes(job_table_q(&t, t.layout.n_slots - 1), 4);
    read_bytes(job_table_out(&t, t.layout.n_slots - 1), 4);
    (void)job_worker_epoch_raised(&t);
    job_table_detach(&t);
}

static void count_stat(void *arg, const struct stats_name *name, uint64_t value)
{
    (void)arg;
    sink += value + strlen(name->name) + strlen(name->doc);
}

static void attach(unsigned kind)
{
    static struct bell_shared bell;
    struct engine_page page = {.segment = SEGMENT_NONE};
    struct directory directory = DIRECTORY_NONE;
    struct stats_page stats = STATS_NONE;
    struct arena arena = ARENA_NONE;
    struct error err = {""};
    int rc = 0;

    switch (kind) {
    case 0:
        rc = engine_page_attach(&page, folder, 0, &err);
        sink += rc == 0 ? engine_page_epoch(&page) : 0;
        engine_page_detach(&page);
        break;
    case 1:
        use_jobs(&bell);
        return;
    case 2:
        rc = arena_attach(&arena, folder, 0, 0, false, &err);
        if (rc == 0)
            use_arena(&arena);
        arena_detach(&arena);
        break;
    case 3:
        rc = directory_attach(&directory, folder, 0, &err);
        if (rc == 0)
            use_directory(&directory);
        directory_detach(&directory);
        break;
    default:
        rc = stats_attach(&stats, folder, "fuzz", 0, &err);
        if (rc == 0)
            stats_foreach(&stats, count_stat, NULL);
        stats_detach(&stats);
        break;
    }
    invariant(rc == 0 || err.text[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[128];

    if (templates[0] == NULL)
        set_up();
    if (n == 0)
        return 0;
    const unsigned kind = data[0] % N_KINDS;

    (void)snprintf(path, sizeof path, "%s/%s", folder, names[kind]);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    invariant(fd >= 0);
    invariant(write(fd, templates[kind], template_bytes[kind]) == (ssize_t)template_bytes[kind]);
    for (size_t at = 1; at + CHANGE_BYTES <= n; at += CHANGE_BYTES) {
        const uint8_t *c = data + at;
        size_t off =
            (c[0] | (size_t)c[1] << 8 | (size_t)(c[2] & 0x3f) << 16) % template_bytes[kind];
        size_t len = 1U + (c[2] >> 6);

        if (off + len <= template_bytes[kind])
            invariant(pwrite(fd, c + 3, len, (off_t)off) == (ssize_t)len);
    }
    close(fd);
    attach(kind);
    return 0;
}
