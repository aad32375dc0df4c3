omni_test(test_class_queue fast LIBS omni_sched SOURCES test_class_queue.c)
