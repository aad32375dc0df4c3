# common/model: model files, weights, tokenizer and chat.
foreach(module half gguf gguf_fuzz weight dense_op model model_families model_cut tokenizer tokenizer_chars
        tokenizer_files pretokenizer detokenizer stop_scanner chat_template chat_golden)
  omni_test(model_${module} fast LIBS omni_model PkgConfig::JANSSON
    SOURCES test_${module}.c model_test.c ref_model.c chars_vocab.c)
  target_compile_definitions(model_${module} PRIVATE OMNI_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
endforeach()
