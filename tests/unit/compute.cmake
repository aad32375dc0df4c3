omni_test(test_team fast LIBS omni_compute SOURCES test_team.c)
omni_test(test_dense fast LIBS omni_compute ${CMAKE_DL_LIBS}
  SOURCES test_dense.c ${CMAKE_SOURCE_DIR}/tests/bench/blas_ref.c)
omni_test(test_ops fast LIBS omni_compute SOURCES test_ops.c)
omni_test(test_attention fast LIBS omni_compute SOURCES test_attention.c attention_fixture.c)
omni_test(test_attention_reach fast LIBS omni_compute
  SOURCES test_attention_reach.c attention_fixture.c TIMEOUT 300)
foreach(name test_attention test_attention_reach)
  omni_test(${name}_emulated fast LIBS omni_compute
    SOURCES ${name}.c attention_fixture.c kernels_emulated_amx.c kernels_emulated_fp16.c TIMEOUT 300)
  target_compile_definitions(${name}_emulated PRIVATE OMNI_EMULATED)
endforeach()
if(NOT OMNI_SANITIZE) # under the sanitizers the compiler takes minutes for it
  set_source_files_properties(kernels_emulated_amx.c kernels_emulated_fp16.c PROPERTIES COMPILE_OPTIONS -O3)
endif()
omni_test(test_attention_shared fast LIBS omni_compute SOURCES test_attention_shared.c)

add_test(NAME test_attention_instructions
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_attention_instructions.sh $<TARGET_FILE:omni_compute>)
set_tests_properties(test_attention_instructions PROPERTIES LABELS fast SKIP_RETURN_CODE 77 TIMEOUT 60)
