# shellcheck shell=bash
# Finds and removes what a group left behind: processes, sockets, shared-memory segments.
#
# What is ours is proved, not guessed: a process by the mark in its environment, a socket by being in
# our run folder with nobody listening, a segment by an exclusive lock (`omni clean`), which no other
# process that maps it would allow.

process_is_ours() {
    # A zombie has an empty environment, so it counts as gone.
    grep -zqxF "OMNI_GROUP_MARK=$RUN" "/proc/$1/environ" 2>/dev/null
}

our_processes() {
    local path pid
    for path in /proc/[0-9]*; do
        pid=${path#/proc/}
        [ ! -O "$path" ] || ! process_is_ours "$pid" || printf '%s\n' "$pid"
    done
}

# Ends processes of a group whose supervisord is gone; a worker may be stopped, so CONT follows TERM.
clean_processes() {
    local pids pid i
    mapfile -t pids < <(our_processes)
    [ ${#pids[@]} -gt 0 ] || return 0
    for pid in "${pids[@]}"; do
        say "group $NAME: ending leftover process $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null))"
        kill -TERM "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true
    done
    for ((i = 0; i < 50; i++)); do
        mapfile -t pids < <(our_processes)
        [ ${#pids[@]} -gt 0 ] || return 0
        sleep 0.1
    done
    kill -KILL "${pids[@]}" 2>/dev/null || true
    sleep 0.2
    mapfile -t pids < <(our_processes)
    [ ${#pids[@]} -eq 0 ] || { warn "these processes do not end: ${pids[*]}"; return 1; }
}

# Segments that nobody holds; what stays is somebody's, and is named.
clean_segments() {
    if [ -x "$BIN/omni" ]; then
        "$BIN/omni" clean --config "$CONFIG" >&2 || true
    elif [ -d "$SHM" ]; then
        warn "$BIN/omni is missing, so segments in $SHM cannot be cleaned"
    fi
    [ -d "$SHM" ] || return 0
    rmdir "$SHM" 2>/dev/null && return 0
    warn "still in use by a process that this group did not start: $(find "$SHM" -mindepth 1 -printf '%f ' 2>/dev/null)in $SHM"
    return 1
}

# Only without a live supervisord of this group.  Says what it removes; fails when something remains.
clean_leftovers() {
    local rc=0
    clean_processes || rc=1
    rm -f "$RUN/supervisord.pid"
    "${PROBE[@]}" clean-sockets "$RUN" || rc=1
    clean_segments || rc=1
    return $rc
}
