# shellcheck shell=bash
# The configuration of a group: generated for this machine, read back, and turned into supervisord's.
#
# Placement: every NUMA node's cores are halved; the engine's threads take the first halves (on the
# embedded cpu device it does the dense work), the workers of a node share its second half.  Only
# cores that this process may use count, so a container or a taskset is respected.

run_base_default() {
    if [ -n "${XDG_RUNTIME_DIR:-}" ]; then
        printf '%s/omni\n' "$XDG_RUNTIME_DIR"
    else
        printf '/tmp/omni-%s\n' "$(id -u)"
    fi
}

# folder_private PATH: makes it with its parent, mode 0700, and refuses one of somebody else: /tmp is
# everybody's.
folder_private() {
    mkdir -p "$1" 2>/dev/null || true
    { [ -d "$1" ] && [ -O "$1" ] && [ -O "${1%/*}" ]; } || die "$1 cannot be made, or belongs to another user" \
        "set group.run_dir in the configuration (or XDG_RUNTIME_DIR) to a folder of your own"
    chmod 700 "$1"
}

# The nodes' CPUs that we may use, one node a line; a kernel without NUMA has one node.
machine_nodes() {
    local allowed node cpus cpu
    allowed=" $(cpulist_expand "$(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status)") "
    for node in /sys/devices/system/node/node[0-9]*; do
        [ -f "$node/cpulist" ] || continue
        cpus=''
        for cpu in $(cpulist_expand "$(cat "$node/cpulist")"); do
            [[ $allowed != *" $cpu "* ]] || cpus+="$cpu "
        done
        [ -z "$cpus" ] || printf '%s\n' "$cpus"
    done | grep . || printf '%s\n' "$allowed"
}

# node_halves CPU...: two cpulists, "engine workers"; hardware threads of one core stay together,
# since a core's threads share the units that both sides need.
node_halves() {
    local cpu core cores=() half first=() second=()
    local -A threads=()
    for cpu in "$@"; do
        core=$(cut -d, -f1 "/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list" 2>/dev/null || echo "$cpu")
        core=${core%%-*}
        [ -n "${threads[$core]-}" ] || cores+=("$core")
        threads[$core]+="$cpu "
    done
    [ ${#cores[@]} -gt 1 ] || { cores=("$@"); for cpu in "$@"; do threads[$cpu]=$cpu; done; }
    half=$(((${#cores[@]} + 1) / 2))
    # shellcheck disable=SC2206 # words wanted
    for core in "${cores[@]:0:half}"; do first+=(${threads[$core]}); done
    # shellcheck disable=SC2206
    for core in "${cores[@]:half}"; do second+=(${threads[$core]}); done
    [ ${#second[@]} -gt 0 ] || second=("${first[@]}")
    printf '%s %s\n' "$(sorted_cpulist "${first[@]}")" "$(sorted_cpulist "${second[@]}")"
}

sorted_cpulist() {
    # shellcheck disable=SC2046 # one word per number
    cpulist_join $(printf '%s\n' "$@" | sort -n)
}

# settings_of SECTION: the --set values of a section as lines of an INI file.
settings_of() {
    local setting
    for setting in ${SETTINGS[@]+"${SETTINGS[@]}"}; do
        [[ $setting == *.*=* ]] || die "--set wants SECTION.KEY=VALUE, not '$setting'"
        [ "${setting%%.*}" != "$1" ] || printf '%s\n' "${setting#*.}"
    done
}

config_known_section() {
    local setting
    for setting in ${SETTINGS[@]+"${SETTINGS[@]}"}; do
        case ${setting%%.*} in
        group | model | engine | worker | router | log) ;;
        *) die "--set $setting: no section '${setting%%.*}'" "there are group, model, engine, worker, router and log" ;;
        esac
    done
}

# Names and folders of the group, and its list of programs, from the configuration file.
group_config_read() {
    NAME=$(ini_get "$CONFIG" group name omni)
    RUN=$(ini_get "$CONFIG" group run_dir "$(run_base_default)")/$NAME
    SHM=$(ini_get "$CONFIG" group shm_dir "/dev/shm/omni-$(id -u)")/$NAME
    N_ENGINES=$(ini_get "$CONFIG" group n_engines 1)
    N_WORKERS=$(ini_get "$CONFIG" group n_workers 1)
    local i
    PROGRAMS=(router)
    for ((i = 0; i < N_ENGINES; i++)); do PROGRAMS+=("engine-$i"); done
    for ((i = 0; i < N_WORKERS; i++)); do PROGRAMS+=("attnd-$i"); done
    # supervisord binds "<path>.<pid>" first and renames it; a Unix path holds 107 bytes.
    [ $((${#RUN} + ${#RUN_SOCKET} + 8)) -le 107 ] || die "the run folder's path is too long for a socket: $RUN" \
        "set group.run_dir to a shorter one"
}
RUN_SOCKET=/supervisor.sock

# quoted WORD: as supervisord reads a command: % is an expansion there, quotes group words.
quoted() { printf '"%s"' "${1//%/%%}"; }

# program NAME PRIORITY WORD...: one program of supervisord's configuration.
#   startsecs=0, a large startretries: a program that dies at once is started again for ever; otherwise
#   a few quick kills end in FATAL and the part stays away.
supervisord_program() {
    local name=$1 priority=$2 word line=''
    shift 2
    for word in "$@"; do line+="$(quoted "$word") "; done
    cat <<END

[program:$name]
command=$line
priority=$priority
autostart=true
autorestart=true
startsecs=0
startretries=1000000000
stopsignal=TERM
stopwaitsecs=10
redirect_stderr=true
stdout_logfile=${RUN//%/%%}/log/$name.log
stdout_logfile_maxbytes=4MB
stdout_logfile_backups=2
END
}

supervisord_config() {
    local run=${RUN//%/%%} i user=''
    [ "$(id -u)" -ne 0 ] || user=user=root
    cat <<END
; Generated by omni-group from $CONFIG; a change here lasts until the next \`up\`.
[unix_http_server]
file=$run$RUN_SOCKET
chmod=0600

[supervisord]
pidfile=$run/supervisord.pid
logfile=$run/log/supervisord.log
logfile_maxbytes=4MB
logfile_backups=2
identifier=omni-$NAME
umask=077
$user

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://$run$RUN_SOCKET
END
    supervisord_program router 30 "$BIN/omni-router" --config "$CONFIG"
    for ((i = 0; i < N_ENGINES; i++)); do
        supervisord_program "engine-$i" 20 "$BIN/omni-gpu-engine" --config "$CONFIG" --index "$i"
    done
    for ((i = 0; i < N_WORKERS; i++)); do
        supervisord_program "attnd-$i" 10 "$BIN/omni-cpu-attnd" --config "$CONFIG" --index "$i"
    done
}
