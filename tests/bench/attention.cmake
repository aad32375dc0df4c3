omni_bench(attention LIBS omni_shm omni_compute
  SOURCES bench_attention.c attention_rates.c attention_overhead.c)
