# shellcheck shell=bash
# Installs the Debian packages that something needs, and only those that are missing.
#
# packages_need PURPOSE... is silent and fast when all are there.  As root it calls apt-get, else
# sudo when that works; where neither does, it prints the line to run and exits 1.
# OMNI_SKIP_PACKAGES=1 trusts the machine (another distribution, own builds of the libraries).

# packages_of PURPOSE: the packages, one a line.
packages_of() {
    case $1 in
    build)
        printf '%s\n' gcc libc6-dev cmake ninja-build pkgconf libopenblas-dev libnanomsg-dev \
            libmsgpack-dev libhwloc-dev libinih-dev libjansson-dev libpcre2-dev ;;
    run) printf '%s\n' supervisor python3 ;;
    fetch) printf '%s\n' python3-pip ca-certificates ;;
    test) printf '%s\n' libcmocka-dev python3 valgrind xz-utils ;;
    lint) printf '%s\n' clang-format clang-tidy shellcheck universal-ctags ;;
    fuzz) printf '%s\n' clang ;;
    plot) printf '%s\n' python3-matplotlib ;;
    *) die "packages_of: unknown purpose '$1'" ;;
    esac
}

# packages_missing PURPOSE...: those of them that are not installed, on one line.
packages_missing() {
    local purpose wanted installed
    wanted=$(for purpose in "$@"; do packages_of "$purpose"; done | sort -u)
    # shellcheck disable=SC2086 # one word per package
    installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' $wanted 2>/dev/null |
        awk '$2 == "installed" { print $1 }' | sort -u)
    comm -23 <(printf '%s\n' "$wanted") <(printf '%s\n' "$installed") | paste -sd' ' -
}

packages_need() {
    [ "${OMNI_SKIP_PACKAGES:-0}" = 1 ] && return 0
    local missing
    command -v dpkg-query >/dev/null ||
        die "this is not a Debian system, so packages cannot be installed for you" \
            "install the equivalents of: $(for p in "$@"; do packages_of "$p"; done | paste -sd' ' -)" \
            "then run again with OMNI_SKIP_PACKAGES=1"
    missing=$(packages_missing "$@")
    [ -z "$missing" ] && return 0
    packages_install "$missing" || exit 1
    missing=$(packages_missing "$@")
    [ -z "$missing" ] || die "apt-get ended well, but these are still missing: $missing"
}

packages_install() {
    local list=$1 as=()
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then
            as=(sudo -n)
        elif [ -t 0 ] && command -v sudo >/dev/null; then
            as=(sudo)
        else
            die "packages are missing, and neither root nor sudo is at hand; run:" \
                "apt-get update && apt-get install -y --no-install-recommends $list"
        fi
    fi
    say "packages: installing $list"
    local apt=("${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300
        -o Dpkg::Use-Pty=0)
    "${apt[@]}" update -q >&2 ||
        die "apt-get update failed" "check the network and /etc/apt/sources.list, then run again"
    # shellcheck disable=SC2086 # one word per package
    "${apt[@]}" install -y -q --no-install-recommends $list >&2 ||
        die "apt-get install failed" "the lines above say why; mend that and run again, or install by hand:" \
            "apt-get install -y --no-install-recommends $list"
}
