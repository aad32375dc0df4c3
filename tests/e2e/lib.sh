# shellcheck shell=bash
# For end-to-end tests in bash: a group of real programs, under omni-group, on the tiny random model.
#
#   . "$(dirname "$0")/lib.sh"
#   e2e_begin [SECTION.KEY=VALUE...]     E2E_DIR, E2E_CONFIG; skips (77) when a program is missing
#   e2e_up                               ready, or the test fails with the logs
#   e2e_pid engine-0                     e2e_kill engine-0 -9
#   e2e_omni status --json               the client, with --config
#   fail MESSAGE                         ends the test
#
# Whatever ends the test, the group is taken down and the folder removed.  Names and folders are
# unique, so that tests may run beside each other and beside a user's group.

E2E_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export OMNI_BIN_DIR=${OMNI_BIN_DIR:-$E2E_ROOT/build/release/bin}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

e2e_skip() {
    echo "skipped: $*" >&2
    exit 77
}

e2e_group() { "$E2E_ROOT/deploy/omni-group" "$@" --config "$E2E_CONFIG"; }
e2e_omni() { "$OMNI_BIN_DIR/omni" "$@" --config "$E2E_CONFIG"; }

# The model: $E2E_MODEL if set, else the tiny random one.
e2e_begin() {
    local program setting
    for program in omni omni-router omni-gpu-engine omni-cpu-attnd omni-tiny-model; do
        [ -x "$OMNI_BIN_DIR/$program" ] || e2e_skip "$OMNI_BIN_DIR/$program is not built"
    done
    command -v supervisord >/dev/null || e2e_skip "supervisord is not installed"
    E2E_DIR=$(mktemp -d /tmp/omni-e2e.XXXXXX)
    E2E_NAME=t$$
    E2E_CONFIG=$E2E_DIR/group.ini
    E2E_RUN=$E2E_DIR/run/$E2E_NAME
    trap e2e_finish EXIT
    if [ -z "${E2E_MODEL:-}" ]; then
        E2E_MODEL=$E2E_DIR/tiny.gguf
        "$OMNI_BIN_DIR/omni-tiny-model" "$E2E_MODEL" >/dev/null || fail "omni-tiny-model"
    fi
    local settings=(--group "$E2E_NAME" --model "$E2E_MODEL" --set run.dir="$E2E_DIR/run"
        --set shm.dir="/dev/shm/omni-e2e-$$" --set worker.arena_mb=16 --set engine.kv_mb=16
        --set engine.profile=off) # a test in which deadlines matter asks for a profile
    for setting in "$@"; do settings+=(--set "$setting"); done
    "$E2E_ROOT/deploy/omni-group" config "${settings[@]}" >"$E2E_CONFIG"
    mkdir -p "$E2E_DIR/run" "/dev/shm/omni-e2e-$$"
}

e2e_up() {
    e2e_group up --timeout 60 >"$E2E_DIR/up.log" 2>&1 || { cat "$E2E_DIR/up.log" >&2; fail "the group does not come up"; }
}

e2e_pid() { supervisorctl -c "$E2E_RUN/supervisord.conf" pid "$1"; }
e2e_kill() { kill "$2" "$(e2e_pid "$1")"; }

# e2e_wait SECONDS COMMAND...: until it succeeds.
e2e_wait() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

e2e_finish() {
    local rc=$?
    trap - EXIT
    if [ $rc -ne 0 ] && [ $rc -ne 77 ]; then
        tail -n 20 "$E2E_RUN"/log/*.log >&2 || true
    fi
    if ! e2e_group down >"$E2E_DIR/down.log" 2>&1; then
        cat "$E2E_DIR/down.log" >&2
        [ $rc -ne 0 ] || rc=1
    fi
    rm -rf "$E2E_DIR" "/dev/shm/omni-e2e-$$"
    exit $rc
}
