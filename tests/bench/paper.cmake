# The script tests/bench/paper runs omni-sim.
if(NOT OMNI_SANITIZE)
  add_test(NAME bench_paper COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_paper.py)
  set_tests_properties(bench_paper PROPERTIES LABELS fast SKIP_RETURN_CODE 77 TIMEOUT 600
    ENVIRONMENT "OMNI_BIN_DIR=${CMAKE_BINARY_DIR}/bin")
endif()
