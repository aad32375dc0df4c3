/* probe_register.cu - what pinning shared memory costs, and whether it copies as fast afterwards.
 *
 * Slots and done words live in segments that outlive the engine, so they are registered and not
 * allocated by CUDA.  A memfd stands for such a segment: the same pages as a file in /dev/shm
 * (which is tried when there is no memfd), without that mount's size limit.  4 KiB pages unless the
 * machine's shmem_enabled says otherwise (in the results' head).  "fresh": pages never touched
 * before, so that the time holds their allocation too. */
#include "tests/gpu/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t COPY_BYTES = 256 * MIB;

struct mapping {
    char *at;
    size_t bytes;
};

/* Half of what the machine says is available, at most: a probe must not push a machine into swap.
 */
static size_t memory_allowed(void)
{
    char line[128];
    size_t kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %zu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * KIB / 2;
}

static int shared_file(void)
{
    char path[] = "/dev/shm/omni-probe-XXXXXX";
    int fd = memfd_create("omni-probe", MFD_CLOEXEC);
    if (fd < 0 && (fd = mkstemp(path)) >= 0)
        unlink(path);
    return fd;
}

static int mapping_open(struct probe *p, struct mapping *m, size_t bytes, bool touched)
{
    const int fd = shared_file();
    m->bytes = bytes;
    m->at = NULL;
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return probe_fail(p, "shared file of %zu bytes: %s", bytes, strerror(errno));
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        return probe_fail(p, "mmap of %zu bytes: %s", bytes, strerror(errno));
    m->at = (char *)at;
    for (size_t i = 0; touched && i < bytes; i += 4096)
        m->at[i] = (char)(i >> 12);
    return 0;
}

static void mapping_close(struct mapping *m)
{
    if (m->at)
        munmap(m->at, m->bytes);
    m->at = NULL;
}

static int registered_time(struct probe *p, const struct mapping *m, double *register_s,
                           double *unregister_s)
{
    const uint64_t t0 = probe_now_ns();
    PROBE_TRY(p,
              cudaHostRegister(m->at, m->bytes, cudaHostRegisterMapped | cudaHostRegisterPortable));
    const uint64_t t1 = probe_now_ns();
    PROBE_TRY(p, cudaHostUnregister(m->at));
    *register_s = (double)(t1 - t0) / 1e9;
    *unregister_s = (double)(probe_now_ns() - t1) / 1e9;
    return 0;
}

/* Per 10^9 bytes; each registration of fresh memory, because a second one of the same pages is
 * cheaper. */
static int one_size(struct probe *p, const char *name, size_t bytes, bool touched)
{
    struct mapping m;
    double on_s = 0.0, off_s = 0.0;
    if (bytes > memory_allowed())
        return probe_fail(p, "%zu bytes are more than half of the available memory", bytes);
    int rc = mapping_open(p, &m, bytes, touched);
    if (!rc)
        rc = registered_time(p, &m, &on_s, &off_s);
    mapping_close(&m);
    if (rc)
        return rc;
    probe_number(p, on_s * 1e9 / (double)bytes, "register_%s_s_per_gb", name);
    probe_number(p, off_s * 1e9 / (double)bytes, "unregister_%s_s_per_gb", name);
    return 0;
}

static int measure_small(struct probe *p)
{
    return one_size(p, "16m", 16 * MIB, true); /* slots and done words: MBs */
}

static int measure_1g(struct probe *p)
{
    return one_size(p, "1g", GIB, true);
}

static int measure_4g(struct probe *p)
{
    return one_size(p, "4g", 4 * GIB, true);
}

static int measure_fresh(struct probe *p)
{
    return one_size(p, "fresh_1g", GIB, false);
}

struct copy_work {
    void *to, *from;
    enum cudaMemcpyKind kind;
};

static cudaError_t copy_launch(void *arg, unsigned, cudaStream_t stream)
{
    const struct copy_work *w = (const struct copy_work *)arg;
    return cudaMemcpyAsync(w->to, w->from, COPY_BYTES, w->kind, stream);
}

static int copies_run(struct probe *p, const struct mapping *m)
{
    void *device;
    double us;
    PROBE_DO(probe_device_alloc(p, &device, COPY_BYTES));
    struct copy_work in = {device, m->at, cudaMemcpyHostToDevice},
                     out = {m->at, device, cudaMemcpyDeviceToHost};
    PROBE_DO(probe_time(p, {copy_launch, &in}, 1, 7, &us));
    probe_number(p, probe_gbps((double)COPY_BYTES, us), "registered_h2d_gbps");
    PROBE_DO(probe_time(p, {copy_launch, &out}, 1, 7, &us));
    probe_number(p, probe_gbps((double)COPY_BYTES, us), "registered_d2h_gbps");
    return 0;
}

static int measure_copies(struct probe *p)
{
    struct mapping m;
    PROBE_DO(mapping_open(p, &m, COPY_BYTES, true));
    const cudaError_t e =
        cudaHostRegister(m.at, m.bytes, cudaHostRegisterMapped | cudaHostRegisterPortable);
    int rc = e == cudaSuccess ? copies_run(p, &m) : probe_fail_cuda(p, "cudaHostRegister", e);
    if (e == cudaSuccess) {
        (void)cudaDeviceSynchronize(); /* no copy may be under way when the pages go */
        (void)cudaHostUnregister(m.at);
    }
    mapping_close(&m);
    return rc;
}

static const struct probe_measurement measurements[] = {
    {"register_16m_s_per_gb", measure_small}, {"register_1g_s_per_gb", measure_1g},
    {"register_4g_s_per_gb", measure_4g},     {"register_fresh_1g_s_per_gb", measure_fresh},
    {"registered_copies", measure_copies},
};

const struct probe_part part_register = {"register", "cudaHostRegister on shared memory", 40, 5,
                                         measurements};
