omni_test(test_config fast LIBS omni_base SOURCES test_config.c)
omni_test(test_process fast LIBS omni_base SOURCES test_process.c)
