#!/bin/bash
# Scripts and programs look for a group in the same folder, whatever XDG_RUNTIME_DIR names, and nobody
# makes that folder where it does not exist.
set -euo pipefail
root=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/../..")
export OMNI_BIN_DIR=${OMNI_BIN_DIR:-$root/build/release/bin}
# shellcheck source=deploy/lib/common.sh
. "$root/deploy/lib/common.sh"
# shellcheck source=deploy/lib/group_config.sh
. "$root/deploy/lib/group_config.sh"
for program in omni omni-router; do
    [ -x "$OMNI_BIN_DIR/$program" ] || { echo "$OMNI_BIN_DIR/$program is not built"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tmp=/tmp/omni-$(id -u)

expect() {
    [ "$2" = "$3" ] || { echo "XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR-(unset)}: $1: expected $2, found $3"; exit 1; }
}

check() {
    local want=$1 said
    expect "scripts, by asking" "$want" "$(run_base_default)"
    expect "scripts, nothing built" "$want" "$(run_base_unbuilt)"
    expect omni-router "$want/omni" "$("$OMNI_BIN_DIR/omni-router" --print-run-dir)"
    # The command line client names the address that it tried.
    said=$("$OMNI_BIN_DIR/omni" chat --group nobody-here hello 2>&1) && { echo "a group that is not there answers"; exit 1; }
    [[ $said == *"$want/nobody-here/"* ]] || { echo "omni does not look in $want: $said"; exit 1; }
}

export XDG_RUNTIME_DIR=$work
check "$work/omni"
export XDG_RUNTIME_DIR=$work/missing
check "$tmp"
export XDG_RUNTIME_DIR=relative
check "$tmp"
unset XDG_RUNTIME_DIR
check "$tmp"
rc=0
XDG_RUNTIME_DIR=$work/missing "$root/deploy/omni-group" status --group nobody-here 2>/dev/null || rc=$?
expect "exit of omni-group status without a group" 1 "$rc"
[ ! -e "$work/missing" ] || { echo "$work/missing was made"; exit 1; }
[ ! -e "$work/omni" ] || { echo "looking for a group made $work/omni"; exit 1; }
echo "run folder: scripts and programs agree"
