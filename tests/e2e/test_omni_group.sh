#!/bin/bash
# omni-group over dummy programs: what it starts, what it restarts, and that nothing is left behind,
# also after kill -9 of supervisord and of everything.  (The real programs: test_group.sh.)
# shellcheck disable=SC2015 # "check || fail": fail ends the script
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
root=$(readlink -f "$here/../..")
command -v supervisord >/dev/null || { echo "supervisord is not installed"; exit 77; }

dir=$(mktemp -d /tmp/omni-test.XXXXXX)
export OMNI_BIN_DIR=$dir/bin
group=$root/deploy/omni-group
config=$dir/group.ini
run=$dir/run/dummy
shm=$dir/shm/dummy
finish() {
    local rc=$?
    "$group" down --config "$config" >"$dir/last-down" 2>&1 || true
    [ $rc -eq 0 ] || { tail -n 20 "$run"/log/*.log "$dir/last-down" || true; }
    rm -rf "$dir"
}
trap finish EXIT

mkdir "$OMNI_BIN_DIR"
for program in omni omni-router omni-gpu-engine omni-cpu-attnd; do
    ln -s "$here/dummy/program.py" "$OMNI_BIN_DIR/$program"
done
cat >"$config" <<END
[group]
name = dummy        ; a comment after a value
n_engines = 1
n_workers = 2

[run]
dir = $dir/run
[shm]
dir = $dir/shm
END

fail() { echo "$*"; exit 1; }
pids() { grep -lzxF "OMNI_GROUP_MARK=$run" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 || true; }
pid_of() { supervisorctl -c "$run/supervisord.conf" pid "$1"; }
expect_nothing_left() {
    [ -z "$(pids)" ] || fail "$1: processes left: $(pids)"
    [ -z "$(find "$dir/run" -type s)" ] || fail "$1: sockets left: $(find "$dir/run" -type s)"
    [ ! -e "$shm" ] || fail "$1: segments left: $(ls "$shm")"
    [ ! -e "$run/supervisord.pid" ] || fail "$1: pid file left"
}
expect_ready() {
    "$group" up --config "$config" >"$dir/out" 2>&1 || { cat "$dir/out"; fail "up failed: $1"; }
    grep -q "ready after" "$dir/out" || fail "up does not say ready: $1"
    grep -qF "omni chat --config $config" "$dir/out" || fail "up does not say how to use it: $1"
    [ "$(pids | wc -l)" -eq 5 ] || fail "$1: expected supervisord and 4 programs, found $(pids | wc -l)"
}

echo "0. a configuration for this machine: a worker per NUMA node with CPUs for us, and what was asked for"
cpus=$(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status)
mkdir -p "$dir/nodes/node0" "$dir/nodes/node1" "$dir/nodes/node2"
echo "${cpus%%[-,]*}" >"$dir/nodes/node0/cpulist"
echo "${cpus##*[-,]}" >"$dir/nodes/node1/cpulist"
echo >"$dir/nodes/node2/cpulist" # memory only
OMNI_SYSFS_NODES=$dir/nodes "$group" config --set engine.p_max=4 --set engine.p_max=8 >"$dir/out"
grep -qx "n_workers=2" "$dir/out" && grep -qx "p_max=8" "$dir/out" && ! grep -q "p_max=4" "$dir/out" ||
    { cat "$dir/out"; fail "generated configuration"; }
"$group" config --attnd 5 | grep -qx "n_workers=5" || fail "--attnd"

echo "1. up, status, up again, logs, down"
expect_ready "first"
[ "$(stat -c %a "$run")" = 700 ] || fail "the run folder is open to others"
"$group" status --config "$config" >"$dir/out" 2>&1 || { cat "$dir/out"; fail "status of a ready group"; }
before=$(pids)
expect_ready "second up of a running group"
[ "$(pids)" = "$before" ] || fail "a second up restarted something"
"$group" logs attnd-1 --config "$config" | grep -q "attnd-1: serving" || fail "logs attnd-1 does not show its line"
"$group" down --config "$config" 2>"$dir/out" || { cat "$dir/out"; fail "down"; }
grep -q "removed segment" "$dir/out" || fail "down does not say what it removed"
expect_nothing_left "after down"
rc=0; "$group" status --config "$config" >"$dir/out" 2>&1 || rc=$?
[ $rc -eq 3 ] || fail "status of a group that is down: exit $rc"
"$group" down --config "$config" 2>/dev/null || fail "down of a group that is down"

echo "2. quick kills are restarted, every time"
expect_ready "before the kills"
for _ in 1 2 3 4 5 6 7 8; do
    old=$(pid_of attnd-0)
    kill -9 "$old"
    for _ in $(seq 100); do
        new=$(pid_of attnd-0)
        [ "$new" = "$old" ] || [ "$new" = 0 ] || break
        sleep 0.05
    done
    [ "$new" != "$old" ] && [ "$new" != 0 ] || fail "attnd-0 was not restarted"
done

echo "3. kill -9 of supervisord alone, then up: no doubles"
kill -9 "$(cat "$run/supervisord.pid")"
expect_ready "after kill -9 of supervisord"
grep -q "ending leftover process" "$dir/out" || fail "the orphans were not named"

echo "4. kill -9 of everything, then up; again, then down"
# shellcheck disable=SC2046 # one word per pid
kill -9 $(pids)
expect_ready "after kill -9 of everything"
# shellcheck disable=SC2046
kill -9 $(pids)
"$group" down --config "$config" 2>/dev/null || fail "down after kill -9"
expect_nothing_left "after kill -9 and down"

echo "5. a stopped program does not hold up down for ever"
expect_ready "before the stop"
kill -STOP "$(pid_of engine-0)"
"$group" down --config "$config" 2>/dev/null || fail "down with a stopped engine"
expect_nothing_left "after a stopped engine"

echo "6. a part that is not ready is named, with its log, and nothing stays"
rc=0; DUMMY_SILENT=attnd-1 "$group" up --config "$config" --timeout 2 >"$dir/out" 2>&1 || rc=$?
[ $rc -eq 1 ] || fail "up of a silent worker: exit $rc"
grep -q "not ready within 2 s" "$dir/out" && grep -q "attnd-1: says nothing" "$dir/out" ||
    { cat "$dir/out"; fail "up does not show why"; }
expect_nothing_left "after a failed up"
rc=0; DUMMY_CRASH=engine-0 "$group" up --config "$config" --timeout 60 >"$dir/out" 2>&1 || rc=$?
[ $rc -eq 1 ] && grep -q "engine-0 starts and dies" "$dir/out" || { cat "$dir/out"; fail "crash loop: exit $rc"; }
expect_nothing_left "after a crash loop"

echo "7. a wrong configuration is refused before anything starts"
sed -i /n_workers/d "$config"
rc=0; "$group" up --config "$config" >"$dir/out" 2>&1 || rc=$?
[ $rc -eq 1 ] && grep -q "n_workers is missing" "$dir/out" || { cat "$dir/out"; fail "check-config: exit $rc"; }
expect_nothing_left "after a refused configuration"
echo "ok"
