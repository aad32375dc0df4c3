#!/bin/sh
# Are the instructions that the attention kernels are written for in the compiled library?
#   test_attention_instructions.sh LIBRARY
# Also where this CPU cannot run them.  77: no disassembler, or no library for x86-64.
command -v objdump >/dev/null 2>&1 || exit 77
code=$(mktemp) || exit 77
trap 'rm -f "$code"' EXIT
objdump -d --no-show-raw-insn "$1" >"$code" || exit 77
grep -q 'elf64-x86-64' "$code" || exit 77
# the function of a kernel file, and what must be in it
check() {
    awk -v file="$1" -v word="$2" '
        /file format/ { inside = index($1, file) == 1 }
        inside && $0 ~ word { n++ }
        END { exit n > 0 ? 0 : 1 }' "$code" || { echo "no $2 in $1"; failed=1; }
}
failed=0
check kernels_avx2.c vfmadd.*ymm
check kernels_avx2.c vcvtph2ps
check kernels_avx2.c vpmaddwd
check kernels_avx512.c vfmadd.*zmm
check kernels_avx512.c 'vpmaddwd.*zmm'
check kernels_avx512bf16.c vdpbf16ps
check kernels_avx512bf16.c vpdpwssd
check kernels_avx512fp16.c 'vfmadd.*ph.*zmm'
check kernels_avx512fp16.c vdpbf16ps
check kernels_amx.c tdpbf16ps
check kernels_amx.c ldtilecfg
check kernels_amx.c tilerelease
# and not where a CPU without them would meet them
for file in kernels_ref.c kernels_avx2.c attention.c attention_block.c attention_append.c attention_cut.c isa.c; do
    awk -v file="$file" '/file format/ { inside = index($1, file) == 1 } inside && /zmm/ { exit 1 }' "$code" ||
        { echo "zmm in $file"; failed=1; }
done
for file in kernels_avx512.c kernels_avx512bf16.c kernels_avx512fp16.c; do
    awk -v file="$file" '/file format/ { inside = index($1, file) == 1 } inside && /tmm/ { exit 1 }' "$code" ||
        { echo "tiles in $file"; failed=1; }
done
exit $failed
