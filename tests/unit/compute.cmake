omni_test(test_team fast LIBS omni_compute SOURCES test_team.c)
omni_test(test_dense fast LIBS omni_compute ${CMAKE_DL_LIBS}
  SOURCES test_dense.c ${CMAKE_SOURCE_DIR}/tests/bench/blas_ref.c)
omni_test(test_ops fast LIBS omni_compute SOURCES test_ops.c)
omni_test(test_attention fast LIBS omni_compute SOURCES test_attention.c)
