#include "tests/bench/blas_ref.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* cblas.h */

/* POSIX: an object pointer from dlsym holds a function's address; ISO C has no cast for it. */
static void symbol(void *library, const char *name, void *out)
{
    void *p = dlsym(library, name);

    memcpy(out, &p, sizeof p);
}

int blas_ref_open(struct blas_ref *ref, enum isa isa)
{
    char *(*get_config)(void);
    void (*set_num_threads)(int);

    memset(ref, 0, sizeof *ref);
    setenv("OPENBLAS_CORETYPE", isa_openblas_coretype(isa), 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    ref->library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (ref->library == NULL)
        return -ENOENT;
    symbol(ref->library, "cblas_sgemm", &ref->sgemm);
    symbol(ref->library, "openblas_get_config", &get_config);
    symbol(ref->library, "openblas_set_num_threads", &set_num_threads);
    if (ref->sgemm == NULL) {
        blas_ref_close(ref);
        return -ENOENT;
    }
    if (set_num_threads != NULL)
        set_num_threads(1);
    ref->config = get_config != NULL ? get_config() : "unknown";
    return 0;
}

void blas_ref_close(struct blas_ref *ref)
{
    if (ref->library != NULL)
        dlclose(ref->library);
    ref->library = NULL;
    ref->sgemm = NULL;
}

void blas_ref_plain(const struct blas_ref *ref, const float *w, uint32_t n, uint32_t k,
                    const float *x, uint32_t n_rows, float *y)
{
    ref->sgemm(ROW_MAJOR, NO_TRANS, TRANS, (int)n_rows, (int)n, (int)k, 1.0f, x, (int)k, w, (int)k,
               0.0f, y, (int)n);
}

void blas_ref_tiles(const struct blas_ref *ref, const float *w, uint32_t n, uint32_t k,
                    const float *x, uint32_t n_rows, float *y)
{
    for (uint32_t c = 0; c < n; c += BLAS_TILE_OUTPUTS) {
        uint32_t left = n - c < BLAS_TILE_OUTPUTS ? n - c : BLAS_TILE_OUTPUTS;

        for (uint32_t r = 0; r < n_rows; r += BLAS_TILE_ROWS)
            ref->sgemm(ROW_MAJOR, NO_TRANS, TRANS, BLAS_TILE_ROWS, (int)left, (int)k, 1.0f,
                       x + (size_t)r * k, (int)k, w + (size_t)c * k, (int)k, 0.0f,
                       y + (size_t)r * n + c, (int)n);
    }
}
