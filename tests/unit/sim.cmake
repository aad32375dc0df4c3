# The simulator: the device and its workers alone, then whole runs of the engine in virtual time.
omni_test(test_device_sim fast LIBS omni_simulation SOURCES test_device_sim.c)
omni_test(test_deadline fast LIBS omni_engine SOURCES test_deadline.c)
omni_test(test_sim_load fast LIBS omni_simulation SOURCES test_sim_load.c)
omni_test(test_sim fast LIBS omni_simulation SOURCES test_sim.c)
omni_test(test_sim_cpu_engine fast LIBS omni_simulation SOURCES test_sim_cpu_engine.c)
omni_test(test_sim_admission fast LIBS omni_simulation SOURCES test_sim_admission.c)
