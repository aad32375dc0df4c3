file(GLOB shm_sources ${CMAKE_SOURCE_DIR}/common/shm/*.c)
omni_fuzz(fuzz_segment LIBS omni_base omni_kv SOURCES fuzz_segment.c ${shm_sources})
omni_fuzz_tests(fuzz_segment)
