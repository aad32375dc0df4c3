/* cublaslt_standin.h - what the tests ask of the stand-in for cuBLASLt beyond the library's own
 * functions: found by name (dlsym) in the shared object that OMNI_CUBLASLT names. */
#ifndef OMNI_TESTS_GPU_SHIM_CUBLASLT_STANDIN_H
#define OMNI_TESTS_GPU_SHIM_CUBLASLT_STANDIN_H
#include <stdint.h>

/* An algorithm that was asked for at n columns refuses fewer than n / divisor; 0: none does. */
typedef void cublaslt_standin_refuse_fn(uint64_t divisor);
void cublaslt_standin_refuse(uint64_t divisor);

#endif
