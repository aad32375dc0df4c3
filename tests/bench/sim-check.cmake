# The real group beside its simulation (omni-sim group), for a moment: that both run, not that they agree.
if(NOT OMNI_SANITIZE)
  omni_bench_script(bench_sim_check_quick full ${CMAKE_CURRENT_SOURCE_DIR}/sim-check --quick)
  set_tests_properties(bench_sim_check_quick PROPERTIES RUN_SERIAL ON)
endif()
