#!/bin/bash
# deploy/omni.example.ini is in step with the programs: the same keys with the same defaults, accepted
# by every program, each with a comment of its own; and a generated configuration is accepted too.
set -euo pipefail
root=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/../..")
bin=${OMNI_BIN_DIR:-$root/build/release/bin}
example=$root/deploy/omni.example.ini
for program in omni-router omni-gpu-engine omni-cpu-attnd; do
    [ -x "$bin/$program" ] || { echo "$bin/$program is not built"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "section.key = value" of every key of an INI file.
keys() {
    awk '/^[ \t]*[;#]/ { next }
         /^\[/ { gsub(/[][]/, ""); section = $0; next }
         /=/ { key = $0; sub(/[ \t]*=.*/, "", key); value = $0; sub(/^[^=]*=[ \t]*/, "", value)
               sub(/[ \t]+;.*$/, "", value); sub(/[ \t]+$/, "", value); print section "." key " = " value }' "$1" | sort
}

"$bin/omni-router" --print-config >"$work/printed.ini"
keys "$example" >"$work/example"
keys "$work/printed.ini" >"$work/printed"
[ "$(wc -l <"$work/printed")" -gt 20 ] || { echo "--print-config prints hardly anything"; exit 1; }
diff -u "$work/printed" "$work/example" || { echo "deploy/omni.example.ini is not what --print-config prints"; exit 1; }

# A key without a comment directly above it shares the one of the key before.
awk '/^;/ { comment = 1; next } /^$/ { comment = 0; next } /^\[/ { comment = 0; next }
     /=/ && !comment { print "no explanation: " $0; bad = 1 } END { exit bad }' "$example"

"$root/deploy/omni-group" config --model "$example" >"$work/generated.ini"
for program in omni-router omni-gpu-engine omni-cpu-attnd; do
    "$bin/$program" --config "$example" --check-config
    "$bin/$program" --config "$work/generated.ini" --check-config
done
echo ok
