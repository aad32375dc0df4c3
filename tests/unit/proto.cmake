omni_test(test_codec fast LIBS omni_proto SOURCES test_codec.c proto_samples.c)
target_compile_definitions(test_codec PRIVATE PROTO_README="${CMAKE_SOURCE_DIR}/proto/README.md")
omni_test(test_wire fast LIBS omni_proto SOURCES test_wire.c)
omni_test(test_client fast LIBS omni_proto SOURCES test_client.c fake_router.c)

# The command line against the same fake router, as a process of its own.
omni_test(test_cli fast LIBS omni_proto omni_model PkgConfig::JANSSON SOURCES test_cli.c fake_router.c)
target_compile_definitions(test_cli PRIVATE OMNI_PROGRAM="$<TARGET_FILE:omni>")
add_dependencies(test_cli omni)

# The client library and the fake router, every access and every byte left; sanitizers do it their own way.
find_program(VALGRIND valgrind)
if(VALGRIND AND NOT OMNI_SANITIZE)
  add_test(NAME test_client_valgrind COMMAND ${VALGRIND} -q --leak-check=full --show-leak-kinds=definite,indirect
    --errors-for-leak-kinds=definite,indirect --error-exitcode=9 $<TARGET_FILE:test_client>)
  set_tests_properties(test_client_valgrind PROPERTIES LABELS fast SKIP_RETURN_CODE 77 TIMEOUT 300)
endif()
