omni_test(test_codec fast LIBS omni_proto SOURCES test_codec.c proto_samples.c)
