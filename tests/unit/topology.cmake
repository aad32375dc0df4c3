omni_test(test_topology fast LIBS omni_topology SOURCES test_topology.c)
omni_test(test_claim fast LIBS omni_topology SOURCES test_claim.c)
