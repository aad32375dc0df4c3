# common/sched: pure functions.
omni_test(test_latency fast LIBS omni_sched SOURCES test_latency.c)
omni_test(test_latency_fit fast LIBS omni_sched SOURCES test_latency_fit.c)
omni_test(test_accuracy fast LIBS omni_sched SOURCES test_accuracy.c)
omni_test(test_scheduler fast LIBS omni_sched SOURCES test_scheduler.c sched_fixture.c)
omni_test(test_scheduler_run fast LIBS omni_sched SOURCES test_scheduler_run.c sched_fixture.c)
omni_test(test_policy_omni fast LIBS omni_sched SOURCES test_policy_omni.c sched_fixture.c)
omni_test(test_objective fast LIBS omni_sched SOURCES test_objective.c)
omni_test(test_admission_judge fast LIBS omni_sched SOURCES test_admission_judge.c sched_fixture.c)
