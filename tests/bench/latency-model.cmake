# The script tests/bench/latency-model starts a group and loads it with omni-bench-load (load.cmake).
if(NOT OMNI_SANITIZE)
  add_test(NAME bench_latency_model_quick COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/latency-model --quick)
  set_tests_properties(bench_latency_model_quick PROPERTIES LABELS full SKIP_RETURN_CODE 77 TIMEOUT 180 RUN_SERIAL ON
    ENVIRONMENT "OMNI_BIN_DIR=${CMAKE_BINARY_DIR}/bin")
endif()
