# cpu-attnd: the order of jobs, and the whole worker against an engine's side made by the test.
omni_test(test_job_order fast LIBS omni_attnd SOURCES test_job_order.c)
omni_test(test_attnd fast LIBS omni_attnd SOURCES test_attnd.c attnd_fixture.c shm_test.c)
