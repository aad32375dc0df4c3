omni_bench(rings LIBS omni_shm omni_topology SOURCES bench_rings.c)

# The aim is 20 us for 400 jobs each way; on a shared machine a test may ask for five times that.
if(NOT OMNI_SANITIZE)
  add_test(NAME bench_rings COMMAND bench_rings --rounds 501 --limit-us 100)
  set_tests_properties(bench_rings PROPERTIES LABELS fast SKIP_RETURN_CODE 77 TIMEOUT 120 RUN_SERIAL ON)
endif()
