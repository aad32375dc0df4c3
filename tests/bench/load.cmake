# The load generator of the benchmarks that drive a real group, and the scripts mixed and replay, which do.
add_executable(omni-bench-load load_main.c load_plan.c load_run.c load_report.c load_door_omni.c load_door_http.c
  load_http.c)
target_link_libraries(omni-bench-load PRIVATE omni_options omni_proto omni_base PkgConfig::JANSSON m)

omni_test(bench_load_http fast LIBS omni_base SOURCES test_load_http.c load_http.c)
omni_test(bench_load_plan fast LIBS omni_base m SOURCES test_load_plan.c load_plan.c)

# Names of programs and of a model that the scripts start.
function(omni_bench_script name label)
  add_test(NAME ${name} COMMAND ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} SKIP_RETURN_CODE 77 TIMEOUT 300
    ENVIRONMENT "OMNI_BIN_DIR=${CMAKE_BINARY_DIR}/bin")
endfunction()

omni_bench_script(bench_load_books fast ${CMAKE_CURRENT_SOURCE_DIR}/test_load.py)
if(NOT OMNI_SANITIZE)
  omni_bench_script(bench_mixed_quick full ${CMAKE_CURRENT_SOURCE_DIR}/mixed --quick)
  set_tests_properties(bench_mixed_quick PROPERTIES RUN_SERIAL ON)
endif()
omni_bench_script(bench_replay_quick fast ${CMAKE_CURRENT_SOURCE_DIR}/replay --quick)
