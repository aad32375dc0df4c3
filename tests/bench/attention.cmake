omni_bench(attention LIBS omni_attnd omni_shm omni_compute
  SOURCES bench_attention.c attention_shape.c attention_report.c attention_rates.c
    attention_overhead.c)
