set(codec_sources ../unit/proto_samples.c)
foreach(file messages field cursor encode decode)
  list(APPEND codec_sources ${CMAKE_SOURCE_DIR}/proto/${file}.c)
endforeach()
omni_fuzz(fuzz_codec LIBS omni_base PkgConfig::MSGPACK SOURCES fuzz_codec.c ${codec_sources})

add_executable(fuzz_codec_seeds fuzz_codec_seeds.c ../unit/proto_samples.c)
target_link_libraries(fuzz_codec_seeds PRIVATE omni_proto)
omni_fuzz_tests(fuzz_codec SEEDS fuzz_codec_seeds)
