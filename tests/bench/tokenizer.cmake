omni_bench(tokenizer LIBS omni_model SOURCES bench_tokenizer.c)
