file(GLOB base_sources ${CMAKE_SOURCE_DIR}/common/base/*.c)
omni_fuzz(fuzz_config LIBS PkgConfig::INIH SOURCES fuzz_config.c ${base_sources})
omni_fuzz_tests(fuzz_config)
