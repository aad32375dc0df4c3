# gpu-engine: the books and the device, without a process.
foreach(module pick sampler kv_pool admission sequence exchange_delay)
  omni_test(test_${module} fast LIBS omni_engine SOURCES test_${module}.c)
endforeach()
omni_test(test_arrival fast LIBS omni_sched SOURCES test_arrival.c)
