# omni plan: quantities, traces, and small plans in virtual time.
omni_test(test_plan fast LIBS omni_simulation SOURCES test_plan.c)
