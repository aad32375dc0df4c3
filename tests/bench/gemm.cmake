omni_bench(gemm LIBS omni_compute ${CMAKE_DL_LIBS} SOURCES bench_gemm.c blas_ref.c)
