omni_test(test_codec fast LIBS omni_proto SOURCES test_codec.c proto_samples.c)
omni_test(test_wire fast LIBS omni_proto SOURCES test_wire.c)
omni_test(test_client fast LIBS omni_proto SOURCES test_client.c fake_router.c)
