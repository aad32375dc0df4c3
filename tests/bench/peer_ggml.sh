#!/bin/bash
# Builds the peer of bench attention outside the tree, from a llama.cpp that is built already:
#
#   tests/bench/peer_ggml.sh LLAMA_SOURCE LLAMA_BUILD OUT
#   OMNI_GGML_PEER=OUT tests/bench/run attention
#
# LLAMA_SOURCE has ggml/include, LLAMA_BUILD has bin/libggml-base.so and bin/libggml-cpu.so
# (cmake -DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON).
set -euo pipefail
[ $# -eq 3 ] || { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
source=$1 libraries=$(readlink -f "$2/bin") out=$3
[ -f "$source/ggml/include/ggml-cpu.h" ] || { echo "no ggml/include in $source" >&2; exit 1; }
[ -f "$libraries/libggml-cpu.so" ] || { echo "no libggml-cpu.so in $libraries" >&2; exit 1; }
"${CC:-cc}" -O2 -std=gnu11 -I"$source/ggml/include" "$here/peer_ggml.c" -o "$out" \
    -L"$libraries" -lggml-cpu -lggml-base -Wl,-rpath,"$libraries" -lm -lpthread
