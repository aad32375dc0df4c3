/* probe_zerocopy.cu - kernels that read and write pinned host memory themselves.
 *
 * This is how jobs leave and results come back: rows of 4-8 KiB at the slots' stride.  Timed as
 * launches back to back, so a figure holds one kernel boundary each (rows=1 shows what that is).
 * Every launch goes to another part of a 256 MiB window, which no device cache holds.  "few blocks"
 * shows how many multiprocessors a drain needs before the link and not the SMs set the pace. */
#include "tests/gpu/kernels.h"
#include "tests/gpu/probe.h"

#include <string.h>

enum { SEED_OUT = 31, SEED_IN = 32, ROWS_MAX = 400 };

static const size_t WINDOW_BYTES = 256 * MIB;
/* Slots lie 64 KiB apart: about an 8B model's q, k, v, output and header with some room. */
static const size_t SLOT16 = 64 * KIB / 16;

struct zerocopy {
    uint4 *host, *device; /* WINDOW_BYTES each */
    size_t bytes;         /* of one contiguous launch */
    int n_blocks;
    int row16, n_rows;
};

static size_t window_at16(const struct zerocopy *z, unsigned iteration)
{
    return iteration % (WINDOW_BYTES / z->bytes) * (z->bytes / 16);
}

static cudaError_t write_launch(void *arg, unsigned iteration, cudaStream_t stream)
{
    const struct zerocopy *z = (const struct zerocopy *)arg;
    const size_t at = window_at16(z, iteration);
    return copy16(z->host + at, z->device + at, z->bytes / 16, z->n_blocks, stream);
}

static cudaError_t read_launch(void *arg, unsigned iteration, cudaStream_t stream)
{
    const struct zerocopy *z = (const struct zerocopy *)arg;
    const size_t at = window_at16(z, iteration);
    return copy16(z->device + at, z->host + at, z->bytes / 16, z->n_blocks, stream);
}

/* Another set of rows each time: the sets differ in slots and in the offset inside the slot. */
static size_t rows_at16(const struct zerocopy *z, unsigned iteration)
{
    const unsigned n_slots = (unsigned)(WINDOW_BYTES / 16 / SLOT16);
    const unsigned n_sets = n_slots / (unsigned)z->n_rows,
                   n_inside = (unsigned)(SLOT16 / (size_t)z->row16);
    return iteration % n_sets * (size_t)z->n_rows * SLOT16 +
           iteration / n_sets % n_inside * (size_t)z->row16;
}

static cudaError_t rows_out_launch(void *arg, unsigned iteration, cudaStream_t stream)
{
    const struct zerocopy *z = (const struct zerocopy *)arg;
    return copy_rows(z->host + rows_at16(z, iteration), SLOT16, z->device, (size_t)z->row16,
                     z->row16, z->n_rows, stream);
}

static cudaError_t rows_in_launch(void *arg, unsigned iteration, cudaStream_t stream)
{
    const struct zerocopy *z = (const struct zerocopy *)arg;
    return copy_rows(z->device, (size_t)z->row16, z->host + rows_at16(z, iteration), SLOT16,
                     z->row16, z->n_rows, stream);
}

static int zerocopy_open(struct probe *p, struct zerocopy *z)
{
    memset(z, 0, sizeof *z);
    z->n_blocks = 4 * p->n_sm;
    PROBE_DO(probe_pinned_alloc(p, (void **)&z->host, WINDOW_BYTES));
    PROBE_DO(probe_device_alloc(p, (void **)&z->device, WINDOW_BYTES));
    PROBE_TRY(p, fill(z->device, WINDOW_BYTES / 16, SEED_OUT, p->stream));
    PROBE_TRY(p,
              cudaMemcpyAsync(z->host, z->device, WINDOW_BYTES, cudaMemcpyDeviceToHost, p->stream));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    return 0;
}

static int contiguous(struct probe *p, const char *name, struct zerocopy *z, struct probe_work work)
{
    static const struct {
        size_t bytes;
        int n_inner;
    } sizes[] = {{64 * KIB, 100}, {MIB, 50}, {16 * MIB, 4}, {256 * MIB, 1}};
    static const int few_blocks[] = {1, 4, 16, 64};
    char size[PROBE_SIZE_TEXT];
    double us = 0.0;
    for (const auto &s : sizes) {
        z->bytes = s.bytes;
        PROBE_DO(probe_time(p, work, s.n_inner, 7, &us));
        probe_number(p, us, "%s_%s_us", name, probe_size(size, s.bytes));
        probe_number(p, probe_gbps((double)s.bytes, us), "%s_%s_gbps", name, size);
    }
    probe_number(p, probe_gbps((double)z->bytes, us), "%s_gbps", name);
    z->bytes = 4 * MIB;
    for (int n : few_blocks) {
        z->n_blocks = n;
        PROBE_DO(probe_time(p, work, 4, 5, &us));
        probe_number(p, probe_gbps((double)z->bytes, us), "%s_blocks%d_gbps", name, n);
    }
    return 0;
}

static int measure_write(struct probe *p)
{
    struct zerocopy z;
    PROBE_DO(zerocopy_open(p, &z));
    memset(z.host, 0, WINDOW_BYTES); /* so that what was not written is found */
    PROBE_DO(contiguous(p, "zc_write", &z, {write_launch, &z}));
    const uint32_t *word = (const uint32_t *)z.host;
    for (uint32_t i = 0; i < WINDOW_BYTES / 4; i += 1021)
        if (word[i] != data_word(SEED_OUT, i))
            return probe_fail(p, "word %u on the host is wrong", i);
    return 0;
}

/* The host's words, seen through the device: checksum of the device's copy. */
static int measure_read(struct probe *p)
{
    struct zerocopy z;
    uint32_t *sum, found = 0, expected = 0;
    PROBE_DO(zerocopy_open(p, &z));
    PROBE_DO(probe_device_alloc(p, (void **)&sum, 256));
    PROBE_TRY(p, cudaMemsetAsync(sum, 0, sizeof *sum, p->stream));
    PROBE_TRY(p, cudaMemsetAsync(z.device, 0, WINDOW_BYTES, p->stream));
    uint32_t *word = (uint32_t *)z.host;
    for (uint32_t i = 0; i < WINDOW_BYTES / 4; i++) {
        word[i] = data_word(SEED_IN, i);
        expected ^= word[i];
    }
    PROBE_DO(contiguous(p, "zc_read", &z, {read_launch, &z}));
    PROBE_TRY(p, read_xor(sum, z.device, WINDOW_BYTES / 16, z.n_blocks, p->stream));
    PROBE_TRY(p, cudaMemcpyAsync(&found, sum, sizeof found, cudaMemcpyDeviceToHost, p->stream));
    PROBE_TRY(p, cudaStreamSynchronize(p->stream));
    return found == expected ? 0 : probe_fail(p, "checksum %08x became %08x", expected, found);
}

static int rows(struct probe *p, const char *name, struct zerocopy *z, struct probe_work work)
{
    static const int n_rows_list[] = {1, 8, 64, 256, ROWS_MAX};
    static const size_t row_bytes_list[] = {4 * KIB, 8 * KIB};
    char size[PROBE_SIZE_TEXT];
    double us;
    for (size_t row_bytes : row_bytes_list)
        for (int n : n_rows_list) {
            z->n_rows = n;
            z->row16 = (int)(row_bytes / 16);
            PROBE_DO(probe_time(p, work, 40, 9, &us));
            probe_number(p, us, "%s_%s_x%d_us", name, probe_size(size, row_bytes), n);
            probe_number(p, probe_gbps((double)row_bytes * n, us), "%s_%s_x%d_gbps", name, size, n);
        }
    return 0;
}

static int measure_rows_out(struct probe *p)
{
    struct zerocopy z;
    PROBE_DO(zerocopy_open(p, &z));
    return rows(p, "zc_rows_out", &z, {rows_out_launch, &z});
}

static int measure_rows_in(struct probe *p)
{
    struct zerocopy z;
    PROBE_DO(zerocopy_open(p, &z));
    return rows(p, "zc_rows_in", &z, {rows_in_launch, &z});
}

struct duplex_work {
    struct zerocopy out, in;
    cudaStream_t side;
    cudaEvent_t fork, join;
};

/* A writing kernel and a reading kernel side by side, each on part of the machine. */
static cudaError_t duplex_launch(void *arg, unsigned iteration, cudaStream_t stream)
{
    struct duplex_work *w = (struct duplex_work *)arg;
    cudaError_t e = cudaEventRecord(w->fork, stream);
    if (e == cudaSuccess)
        e = cudaStreamWaitEvent(w->side, w->fork, 0);
    if (e == cudaSuccess)
        e = write_launch(&w->out, iteration, w->side);
    if (e == cudaSuccess)
        e = read_launch(&w->in, iteration, stream);
    if (e == cudaSuccess)
        e = cudaEventRecord(w->join, w->side);
    return e == cudaSuccess ? cudaStreamWaitEvent(stream, w->join, 0) : e;
}

static int measure_duplex(struct probe *p)
{
    struct duplex_work w = {};
    double us;
    PROBE_DO(zerocopy_open(p, &w.out));
    PROBE_DO(zerocopy_open(p, &w.in));
    PROBE_DO(probe_stream(p, &w.side));
    PROBE_DO(probe_event(p, &w.fork));
    PROBE_DO(probe_event(p, &w.join));
    w.out.n_blocks = w.in.n_blocks = p->n_sm;
    w.out.bytes = w.in.bytes = WINDOW_BYTES;
    PROBE_DO(probe_time(p, {duplex_launch, &w}, 1, 7, &us));
    probe_number(p, probe_gbps(2.0 * (double)WINDOW_BYTES, us), "zc_duplex_gbps");
    return 0;
}

static const struct probe_measurement measurements[] = {
    {"zc_write_gbps", measure_write},   {"zc_read_gbps", measure_read},
    {"zc_rows_out", measure_rows_out},  {"zc_rows_in", measure_rows_in},
    {"zc_duplex_gbps", measure_duplex},
};

const struct probe_part part_zerocopy = {"zerocopy", "pinned host memory from kernels", 30, 5,
                                         measurements};
