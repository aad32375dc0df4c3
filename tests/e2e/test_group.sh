#!/bin/bash
# A group of the real programs under omni-group: it answers, idles, survives kills, leaves nothing.
# shellcheck disable=SC2015 # "check || fail": fail ends the script
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"
e2e_begin group.n_workers=2

our_pids() { grep -lzxF "OMNI_GROUP_MARK=$E2E_RUN" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 || true; }
expect_nothing_left() {
    [ -z "$(our_pids)" ] || fail "$1: processes left: $(our_pids)"
    [ -z "$(find "$E2E_DIR/run" -type s)" ] || fail "$1: sockets left: $(find "$E2E_DIR/run" -type s)"
    [ -z "$(find "/dev/shm/omni-e2e-$$" -type f)" ] || fail "$1: segments left: $(find "/dev/shm/omni-e2e-$$" -type f)"
}
# The tokens of one greedy request; the same whenever the group is the same.
answer() {
    printf '%s\n' '{"prompt": "the quick brown fox", "max_tokens": 12, "temperature": 0, "ignore_eos": true}' >"$E2E_DIR/p.jsonl"
    e2e_omni run --class "$1" --prompt-file "$E2E_DIR/p.jsonl" --json >"$E2E_DIR/answer" || fail "omni run ($1)"
    python3 -c 'import json, sys
done = json.loads(sys.stdin.readline())
assert done["output_tokens"] == len(done["tokens"]) == 12, done
print(done["tokens"])' <"$E2E_DIR/answer"
}

echo "1. up, and both classes are served with the same tokens"
e2e_up
tokens=$(answer ls)
[ "$(answer be)" = "$tokens" ] || fail "BE gives other tokens than LS"

echo "2. an idle group uses no CPU: below 5 % of a core here (1 % is the aim)"
ticks() { for pid in $(our_pids); do cut -d' ' -f14,15 "/proc/$pid/stat"; done | awk '{ n += $1 + $2 } END { print n }'; }
sleep 1
before=$(ticks)
sleep 4
used=$(($(ticks) - before))
echo "   $used ticks of $((4 * $(getconf CLK_TCK)))"
[ "$used" -le $((4 * $(getconf CLK_TCK) / 20)) ] || fail "idle, the group used $used ticks in 4 s"

echo "3. reload: each program takes over what it can, and goes on"
printf '\n[log]\nlevel = warn\n' >>"$E2E_CONFIG"
e2e_group reload >/dev/null || fail "omni-group reload"
for program in router engine-0 attnd-0 attnd-1; do
    reloaded() { grep -q "option_reloaded option=log.level" "$E2E_RUN/log/$program.log"; }
    e2e_wait 10 reloaded || fail "$program did not take log.level over"
done
[ "$(answer ls)" = "$tokens" ] || fail "other tokens after a reload"
sed -i 's/^level = warn/level = info/' "$E2E_CONFIG"
e2e_group reload >/dev/null || fail "omni-group reload, back"

echo "4. each program killed is restarted, and the group serves again"
for program in attnd-0 engine-0 router; do
    old=$(e2e_pid "$program")
    e2e_kill "$program" -9
    restarted() { new=$(e2e_pid "$program") && [ "$new" != 0 ] && [ "$new" != "$old" ]; }
    e2e_wait 10 restarted || fail "$program was not restarted"
    e2e_up
    [ "$(answer be)" = "$tokens" ] || fail "other tokens after $program was killed"
done

echo "5. nanomsg aborts on a malformed ipc frame: that costs one restart of the router"
old=$(e2e_pid router)
python3 - "$E2E_RUN/router.sock" <<'END'
import socket, sys
door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
door.connect(sys.argv[1])
door.sendall(b"\0SP\0\0\x30\0\0" + b"\x07" * 64)  # a REQ peer, then a frame of an unknown type
door.settimeout(10)
try:
    while door.recv(4096):
        pass
except ConnectionError:
    pass
END
router_restarted() { new=$(e2e_pid router) && [ "$new" != 0 ] && [ "$new" != "$old" ]; }
e2e_wait 10 router_restarted || fail "the router did not abort on a malformed frame, or was not restarted"
e2e_up
[ "$(answer ls)" = "$tokens" ] || fail "other tokens after a malformed frame"

echo "6. a killed supervisord takes its programs along"
kill -9 "$(cat "$E2E_RUN/supervisord.pid")"
none_left() { [ -z "$(our_pids)" ]; }
e2e_wait 5 none_left || fail "programs outlive their supervisord: $(our_pids)"

echo "7. up after kill -9 of everything"
e2e_up
# shellcheck disable=SC2046 # one word per pid
kill -9 $(our_pids) || true
e2e_wait 5 none_left || fail "kill -9 left something"
e2e_up
[ "$(answer ls)" = "$tokens" ] || fail "other tokens after kill -9 of everything"

echo "8. down leaves nothing"
e2e_group down >"$E2E_DIR/down.log" 2>&1 || { cat "$E2E_DIR/down.log"; fail "down"; }
expect_nothing_left "after down"
echo ok
