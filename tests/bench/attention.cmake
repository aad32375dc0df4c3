omni_bench(attention LIBS omni_compute SOURCES bench_attention.c)
