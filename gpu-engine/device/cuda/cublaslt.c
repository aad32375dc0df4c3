/* cublaslt.c - see cublaslt.h. */
#include "gpu-engine/device/cuda/cublaslt.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LT_FUNCTIONS(X)                                                                            \
    X(create, cublasLtCreate)                                                                      \
    X(destroy, cublasLtDestroy)                                                                    \
    X(get_version, cublasLtGetVersion)                                                             \
    X(desc_create, cublasLtMatmulDescCreate)                                                       \
    X(desc_destroy, cublasLtMatmulDescDestroy)                                                     \
    X(desc_set, cublasLtMatmulDescSetAttribute)                                                    \
    X(layout_create, cublasLtMatrixLayoutCreate)                                                   \
    X(layout_destroy, cublasLtMatrixLayoutDestroy)                                                 \
    X(layout_set, cublasLtMatrixLayoutSetAttribute)                                                \
    X(preference_create, cublasLtMatmulPreferenceCreate)                                           \
    X(preference_destroy, cublasLtMatmulPreferenceDestroy)                                         \
    X(preference_set, cublasLtMatmulPreferenceSetAttribute)                                        \
    X(heuristic, cublasLtMatmulAlgoGetHeuristic)                                                   \
    X(matmul, cublasLtMatmul)

static const char *const NAMES[] = {
    "libcublasLt.so.13",
    "libcublasLt.so.12",
    "/usr/local/cuda/lib64/libcublasLt.so.13",
    "/usr/local/cuda/lib64/libcublasLt.so.12",
    "/usr/local/cuda/lib64/libcublasLt.so",
    "libcublasLt.so",
};

/* A file that is named is the only one that will do. */
static int library_open(struct cublaslt *lt, struct error *err)
{
    const char *named = getenv("OMNI_CUBLASLT");

    if (named != NULL && *named != '\0') {
        lt->library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
        if (lt->library == NULL)
            return error_set(err, -ENOENT, "OMNI_CUBLASLT = %s: %s", named, dlerror());
        snprintf(lt->path, sizeof lt->path, "%s", named);
        return 0;
    }
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        lt->library = dlopen(NAMES[i], RTLD_NOW | RTLD_LOCAL);
        if (lt->library != NULL) {
            snprintf(lt->path, sizeof lt->path, "%s", NAMES[i]);
            return 0;
        }
    }
    return error_set(
        err, -ENOENT,
        "cuBLASLt is not there: neither libcublasLt.so.13 nor .12 on the library path or in "
        "/usr/local/cuda/lib64; OMNI_CUBLASLT names a file elsewhere");
}

/* POSIX gives functions as object pointers; C converts them by their bytes. */
static const char *functions_load(struct cublaslt *lt)
{
    void *symbol;

#define LT_LOAD(field, name)                                                                       \
    symbol = dlsym(lt->library, #name);                                                            \
    if (symbol == NULL)                                                                            \
        return #name;                                                                              \
    memcpy(&lt->field, &symbol, sizeof symbol);
    LT_FUNCTIONS(LT_LOAD)
#undef LT_LOAD
    return NULL;
}

int cublaslt_open(struct cublaslt *lt, struct error *err)
{
    memset(lt, 0, sizeof *lt);
    int rc = library_open(lt, err);
    if (rc != 0)
        return rc;
    const char *missing = functions_load(lt);
    if (missing != NULL)
        return error_set(err, -ENOENT, "%s has no %s", lt->path, missing);
    lt->version = lt->get_version();
    int status = lt->create(&lt->handle);
    if (status != LT_SUCCESS) {
        lt->handle = NULL;
        return error_set(err, -EIO, "%s: cublasLtCreate: status %d", lt->path, status);
    }
    return 0;
}

void cublaslt_close(struct cublaslt *lt)
{
    if (lt->handle != NULL)
        (void)lt->destroy(lt->handle);
    if (lt->library != NULL)
        (void)dlclose(lt->library);
    memset(lt, 0, sizeof *lt);
}
