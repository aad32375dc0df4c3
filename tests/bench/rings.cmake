omni_bench(rings LIBS omni_shm omni_topology SOURCES bench_rings.c)
