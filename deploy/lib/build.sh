# shellcheck shell=bash
# build_preset PRESET [TARGET...]: configures and builds; ninja's own progress is shown.
#
# It configures every time (a second): libraries that an earlier run did not find may be there now.
build_preset() {
    local preset=$1 log
    shift
    log=$(mktemp)
    say "build: preset $preset, configuring"
    if ! (cd "$OMNI_ROOT" && cmake --preset "$preset") >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "cmake could not configure preset '$preset'" "the lines above say what it missed;" \
            "a stale folder is mended by: rm -rf build/$preset"
    fi
    rm -f "$log"
    say "build: preset $preset, $(nproc) at a time"
    (cd "$OMNI_ROOT" && cmake --build "build/$preset" -j "$(nproc)" ${1:+--target "$@"} >&2) ||
        die "the build of preset '$preset' failed" "the first error is above"
}
