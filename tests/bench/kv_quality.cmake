omni_bench(kv_quality LIBS omni_engine PkgConfig::CMOCKA m
  SOURCES bench_kv_quality.c ../unit/device_fixture.c ../unit/local_exchange.c)
target_compile_definitions(bench_kv_quality PRIVATE OMNI_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
