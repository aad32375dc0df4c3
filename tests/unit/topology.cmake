omni_test(test_topology fast LIBS omni_topology SOURCES test_topology.c)
