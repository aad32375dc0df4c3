# shellcheck shell=bash
# What every script of this project shares: messages, paths, Python, reading an INI file.
#
# Source it; it sets OMNI_ROOT (the repository) and defines functions, and runs nothing.
# OMNI_BIN_DIR names another folder of programs (another preset, or dummies in a test).

OMNI_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf "%s\n" "$@" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# die MESSAGE...: every argument on a line of its own; the first says what failed, the rest how to mend it.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

omni_bin_dir() { printf '%s\n' "${OMNI_BIN_DIR:-$OMNI_ROOT/build/release/bin}"; }

# The Python that Debian's supervisor runs under, where it exists: one of a virtual environment or
# of pyenv may be any version.  Only the standard library is used.
omni_python() {
    if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else echo python3; fi
}

omni_cache_dir() { printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/omniserve"; }

# ini_get FILE SECTION KEY DEFAULT: the last value given, with comments (" ;" and " #") and blanks cut.
ini_get() {
    awk -v want="$2" -v key="$3" -v value="$4" '
        /^[ \t]*[;#]/ { next }
        /^[ \t]*\[/ { gsub(/^[ \t]*\[|\].*$/, ""); section = $0; next }
        section == want {
            at = index($0, "=")
            if (!at) next
            name = substr($0, 1, at - 1); gsub(/^[ \t]+|[ \t]+$/, "", name)
            if (name != key) next
            value = substr($0, at + 1)
            sub(/[ \t][;#].*$/, "", value); gsub(/^[ \t]+|[ \t]+$/, "", value)
        }
        END { print value }' "$1"
}

# cpulist_expand LIST: "0-2,5" as "0 1 2 5".
cpulist_expand() {
    local part cpus=()
    for part in ${1//,/ }; do
        if [[ $part == *-* ]]; then
            mapfile -t -O "${#cpus[@]}" cpus < <(seq "${part%-*}" "${part#*-}")
        else
            cpus+=("$part")
        fi
    done
    printf '%s\n' "${cpus[*]}"
}
