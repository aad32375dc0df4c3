# A tiny model of every family against `transformers`: the goldens, and (full) models made anew where it is
# installed; `tests/tools/families.py` makes both.
omni_test(test_families fast LIBS omni_engine PkgConfig::JANSSON SOURCES test_families.c device_fixture.c
  local_exchange.c)
target_compile_definitions(test_families PRIVATE OMNI_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
find_program(OMNI_PYTHON NAMES python3)
if(OMNI_PYTHON)
  add_test(NAME families_transformers COMMAND ${OMNI_PYTHON} ${CMAKE_SOURCE_DIR}/tests/tools/families.py check
    $<TARGET_FILE:test_families>)
  set_tests_properties(families_transformers PROPERTIES LABELS full SKIP_RETURN_CODE 77 TIMEOUT 600)
endif()
