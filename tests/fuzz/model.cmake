file(GLOB model_sources ${CMAKE_SOURCE_DIR}/common/model/*.c)
omni_fuzz(fuzz_gguf LIBS omni_base PkgConfig::PCRE2 m SOURCES fuzz_gguf.c ${model_sources})
omni_fuzz(fuzz_tokenizer LIBS omni_base PkgConfig::PCRE2 m
  SOURCES fuzz_tokenizer.c ../unit/chars_vocab.c ${model_sources})

add_executable(fuzz_gguf_seeds fuzz_gguf_seeds.c ../unit/chars_vocab.c)
target_link_libraries(fuzz_gguf_seeds PRIVATE omni_model)

omni_fuzz_tests(fuzz_gguf SEEDS fuzz_gguf_seeds)
omni_fuzz_tests(fuzz_tokenizer)
