omni_test(test_class_queue fast LIBS omni_sched SOURCES test_class_queue.c)
omni_test(test_sessions fast LIBS omni_router SOURCES test_sessions.c)
omni_test(test_router fast LIBS omni_router SOURCES test_router.c router_fixture.c fake_engine.c)
omni_test(test_router_faults fast LIBS omni_router
          SOURCES test_router_faults.c router_fixture.c fake_engine.c)
# Real processes too: the program by its path.
target_compile_definitions(test_router_faults
                           PRIVATE OMNI_ROUTER_PROGRAM="$<TARGET_FILE:omni-router>")
add_dependencies(test_router_faults omni-router)
