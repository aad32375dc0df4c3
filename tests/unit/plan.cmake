# omni plan: quantities, traces, and small plans in virtual time.
omni_test(test_plan fast LIBS omni_simulation SOURCES test_plan.c)
omni_test(test_sim_group fast LIBS omni_simulation SOURCES test_sim_group.c)
