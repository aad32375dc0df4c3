# shellcheck shell=bash
# build_preset PRESET [TARGET...]: configures when needed and builds; ninja's own progress is shown.
build_preset() {
    local preset=$1 jobs
    shift
    jobs=$(nproc)
    if [ ! -f "$OMNI_ROOT/build/$preset/build.ninja" ]; then
        say "build: configuring preset $preset"
        (cd "$OMNI_ROOT" && cmake --preset "$preset" >&2) ||
            die "cmake could not configure preset '$preset'" "the lines above say what it missed;" \
                "a stale folder is mended by: rm -rf build/$preset"
    fi
    say "build: preset $preset, $jobs at a time"
    (cd "$OMNI_ROOT" && cmake --build "build/$preset" -j "$jobs" ${1:+--target "$@"} >&2) ||
        die "the build of preset '$preset' failed" "the first error is above"
}
