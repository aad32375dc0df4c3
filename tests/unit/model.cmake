# common/model: model files, weights, tokenizer and chat.
foreach(module half gguf gguf_fuzz weight dense_op model model_families model_cut tokenizer tokenizer_chars
        pretokenizer detokenizer stop_scanner chat_template chat_golden)
  omni_test(model_${module} fast LIBS omni_model PkgConfig::JANSSON
    SOURCES test_${module}.c model_test.c ref_model.c chars_vocab.c)
  target_compile_definitions(model_${module} PRIVATE OMNI_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
endforeach()
# One test for each vocabulary, so that one that is not there shows as skipped.
add_executable(model_tokenizer_files test_tokenizer_files.c model_test.c)
target_link_libraries(model_tokenizer_files PRIVATE omni_options omni_model PkgConfig::JANSSON PkgConfig::CMOCKA)
target_compile_definitions(model_tokenizer_files PRIVATE OMNI_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
foreach(vocabulary gpt-2 llama-bpe qwen2 llama-spm smollm2)
  add_test(NAME model_tokenizer_files_${vocabulary} COMMAND model_tokenizer_files ${vocabulary})
  set_tests_properties(model_tokenizer_files_${vocabulary} PROPERTIES LABELS fast SKIP_RETURN_CODE 77 TIMEOUT 120)
endforeach()
