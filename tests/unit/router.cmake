omni_test(test_class_queue fast LIBS omni_sched SOURCES test_class_queue.c)
omni_test(test_sessions fast LIBS omni_router SOURCES test_sessions.c)
omni_test(test_router_text fast LIBS omni_router SOURCES test_router_text.c)
omni_test(test_requests fast LIBS omni_router SOURCES test_requests.c)

# A whole router in a thread of the test, between a scripted engine and bare clients.
set(fixture router_scene.c router_fixture.c router_output.c fake_engine.c)
omni_test(test_router fast LIBS omni_router SOURCES test_router.c ${fixture})
omni_test(test_router_queues fast LIBS omni_router SOURCES test_router_queues.c ${fixture})
omni_test(test_router_faults fast LIBS omni_router SOURCES test_router_faults.c ${fixture})
# Real processes too: the program by its path.
target_compile_definitions(test_router_faults
                           PRIVATE OMNI_ROUTER_PROGRAM="$<TARGET_FILE:omni-router>")
add_dependencies(test_router_faults omni-router)
