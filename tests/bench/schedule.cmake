omni_bench(schedule LIBS omni_sched SOURCES bench_schedule.c ${CMAKE_SOURCE_DIR}/tests/unit/sched_fixture.c)

# The aim is 50 us, and less than 1 ms for an admission; on a shared machine a test may ask for five times
# the first.
if(NOT OMNI_SANITIZE)
  add_test(NAME bench_schedule COMMAND bench_schedule --rounds 301 --limit-us 250 --admit-limit-us 1000)
  set_tests_properties(bench_schedule PROPERTIES LABELS fast TIMEOUT 120 RUN_SERIAL ON)
endif()
