# The load of the mixed benchmark; the script tests/bench/mixed starts groups and runs it against them.
add_executable(omni-bench-load mixed_load.c)
target_link_libraries(omni-bench-load PRIVATE omni_options omni_proto omni_base)

if(NOT OMNI_SANITIZE)
  add_test(NAME bench_mixed_quick COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mixed --quick)
  set_tests_properties(bench_mixed_quick PROPERTIES LABELS full SKIP_RETURN_CODE 77 TIMEOUT 180 RUN_SERIAL ON
    ENVIRONMENT "OMNI_BIN_DIR=${CMAKE_BINARY_DIR}/bin")
endif()
