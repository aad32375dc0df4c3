#!/bin/bash
# ./tests/run runs what its page says: which builds, and which of their tests.  Over a cmake and a ctest
# that only write down how they were called; that every fuzzer has its two tests is asked of the sources.
set -euo pipefail
root=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
for name in cmake ctest python3; do
    # shellcheck disable=SC2016 # for the script that is written
    printf '#!/bin/sh\necho "%s $*" >>"%s/calls"\n[ %s != ctest ] || exit "$(cat "%s/status")"\n' \
        "$name" "$work" "$name" "$work" >"$work/bin/$name"
    chmod +x "$work/bin/$name"
done

fail() { echo "$1"; cat "$work/calls"; exit 1; }

# calls STATUS ARGUMENT...: what it ran, where every ctest exits with STATUS.
calls() {
    local status=$1 rc=0
    shift
    : >"$work/calls"
    echo "$status" >"$work/status"
    OMNI_SKIP_PACKAGES=1 OMNI_DEMO_MODEL=$root/README.md PATH=$work/bin:$PATH "$root/tests/run" "$@" >"$work/out" 2>&1 || rc=$?
    [ "$rc" -eq "$status" ] || { cat "$work/out"; fail "tests/run $*: exit $rc where tests exit $status"; }
}
n_tests() { grep -c '^ctest ' "$work/calls"; }
expect() { grep -qE -- "$1" "$work/calls" || fail "nobody called: $1"; }

calls 0
expect '^ctest .*build/release .*-L \^fast\$'
expect '^cmake --build build/fuzz .*--target fuzzers'
expect '^ctest .*build/fuzz .*-R \^fuzz_\.\*_fast\$'
[ "$(n_tests)" -eq 2 ] || fail "more than release and the fuzzers"
calls 0 --full
expect '^ctest .*build/release .*-j [0-9]+$'
expect '^ctest .*build/fuzz .*-R \^fuzz_\.\*_full\$'
expect '^ctest .*build/asan .*-R \^model_'
calls 0 --preset tsan
[ "$(n_tests)" -eq 1 ] || fail "more than the preset that was asked for"
calls 0 -R shm
[ "$(n_tests)" -eq 1 ] || fail "more than the tests that were asked for"
calls 1 --full
[ "$(n_tests)" -eq 3 ] || fail "a failure ended it early"

for target in "$root"/tests/fuzz/fuzz_*.c; do
    name=$(basename "$target" .c)
    [[ $name == *_seeds ]] || grep -qE "^omni_fuzz_tests\($name\b" "$root"/tests/fuzz/*.cmake || fail "$name is in no test"
done
echo ok
