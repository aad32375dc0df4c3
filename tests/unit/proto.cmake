omni_test(test_codec fast LIBS omni_proto SOURCES test_codec.c proto_samples.c)
target_compile_definitions(test_codec PRIVATE PROTO_README="${CMAKE_SOURCE_DIR}/proto/README.md")
omni_test(test_wire fast LIBS omni_proto SOURCES test_wire.c)
omni_test(test_client fast LIBS omni_proto SOURCES test_client.c fake_router.c)

# The command line against the same fake router, as a process of its own.
omni_test(test_cli fast LIBS omni_proto omni_model PkgConfig::JANSSON SOURCES test_cli.c fake_router.c)
target_compile_definitions(test_cli PRIVATE OMNI_PROGRAM="$<TARGET_FILE:omni>")
add_dependencies(test_cli omni)
