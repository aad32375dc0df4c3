# gpu-engine: the books and the device, without a process.
foreach(module setup pick wait sampler kv_pool admission sequence exchange_delay)
  omni_test(test_${module} fast LIBS omni_engine SOURCES test_${module}.c)
endforeach()

# Exactness, once per instruction set; a program of a set that this CPU lacks is skipped.
set(device_fixture device_fixture.c local_exchange.c)
omni_test(test_device_cpu fast LIBS omni_engine SOURCES test_device_cpu.c ref_model.c ${device_fixture})
foreach(isa ref avx2 avx512)
  add_test(NAME test_device_cpu_${isa} COMMAND test_device_cpu)
  set_tests_properties(test_device_cpu_${isa} PROPERTIES LABELS fast SKIP_RETURN_CODE 77 TIMEOUT 300
    ENVIRONMENT OMNI_ISA=${isa})
endforeach()

omni_test(test_profile fast LIBS omni_engine SOURCES test_profile.c ${device_fixture})

# Engine and workers as threads of one process.
omni_test(test_engine fast LIBS omni_engine omni_attnd SOURCES test_engine.c engine_fixture.c)
omni_test(test_idle_check fast LIBS omni_engine omni_attnd SOURCES test_idle_check.c engine_fixture.c)
# The same tests over the simulated device, whose tokens are a hash of what it finds in its KV.
add_test(NAME test_engine_sim COMMAND test_engine)
set_tests_properties(test_engine_sim PROPERTIES LABELS fast SKIP_RETURN_CODE 77 TIMEOUT 120
  ENVIRONMENT OMNI_TEST_DEVICE=sim)

# Against llama.cpp's numbers; skipped without the demo model.
omni_test(test_golden fast LIBS omni_engine PkgConfig::JANSSON SOURCES test_golden.c ${device_fixture} TIMEOUT 300)
target_compile_definitions(test_golden PRIVATE OMNI_SOURCE_DIR="${CMAKE_SOURCE_DIR}")

omni_test(test_seams fast LIBS omni_engine SOURCES test_seams.c ref_model.c ${device_fixture})
