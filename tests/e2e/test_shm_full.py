#!/usr/bin/env python3
"""A small shm.dir, as containers have one (64 MB): what does not fit is an error at start that names needed, free and
the remedy, and leaves no half-made segment; what fits serves, and goes on when others have filled the rest.  And mounts
with huge pages and without.
Needs a mount: skipped (77) unless root."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile

import omni_shm
from omni_e2e import BIN, Group, skip, tiny_model, watchdog

SHORT = [{"tokens": [i, 1, 2], "max_tokens": 24, "ignore_eos": True} for i in range(4)]


@contextlib.contextmanager
def mounted_tmpfs(options):
    if os.geteuid() != 0:
        skip("only root may mount a tmpfs")
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False,
                                 capture_output=True, text=True)
        if mounted.returncode != 0:
            skip(f"no mount here: {mounted.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


def test_too_small(model, folder):
    """The default arena of 512 MiB."""
    settings = {"engine.offload": "always", "shm.dir": folder, "worker.arena_mb": 512}
    with Group(1, model=model, settings=settings) as group:
        done = subprocess.run([os.path.join(BIN, "omni-gpu-engine"), "--config", group.config, "--index", "0"],
                              capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout + done.stderr
        print("   " + said.strip().splitlines()[-1])
        assert done.returncode > 0, f"exit {done.returncode}\n{said}"
        assert "cannot_go_on" in said, said
        assert len(re.findall(r"\b\d+\b", said)) >= 2 and "need" in said and "free" in said and folder in said, said
        left = [one for one in os.listdir(os.path.join(folder, group.name)) if "arena" in one]
        assert not left, f"half-made segments stay: {left}"


def fill(folder):
    """Somebody else's file takes what is left, to the last byte."""
    path = os.path.join(folder, "somebody-else")
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert os.statvfs(folder).f_bavail == 0
    return path


def test_filled_up(model, folder):
    """A group that runs needs no more: each program is killed and comes back, and serves the same."""
    settings = {"engine.offload": "always", "shm.dir": folder, "worker.arena_mb": 32}
    with Group(1, model=model, settings=settings) as group:
        group.start()
        expected = [one["tokens"] for one in group.run(SHORT)]
        theirs = fill(folder)
        for name in group.programs():
            group.signal(name, signal.SIGKILL)
            group.start_program(name)
            group.wait_ready()
            assert [one["tokens"] for one in group.run(SHORT)] == expected, f"other tokens after {name} came back"
            assert "no_statistics_page" not in group.log(name, 50), group.log(name, 50)
        os.unlink(theirs)
        return expected


def test_pages(model, huge, expected):
    """Whether a mount gives huge pages is what status and the log say, and nothing else changes."""
    with mounted_tmpfs(f"size=256m,huge={huge}") as folder:
        settings = {"engine.offload": "always", "shm.dir": folder, "worker.arena_mb": 32}
        with Group(1, model=model, settings=settings) as group:
            group.start()
            assert [one["tokens"] for one in group.run(SHORT)] == expected, f"huge={huge}: other tokens"
            worker = group.status()["engines"][0]["workers"][0]
            print(f"   huge={huge}: {worker['huge_bytes']} of {worker['arena_bytes']} arena bytes", flush=True)
            stats = omni_shm.stats(os.path.join(folder, group.name), "gpu-engine")
            assert stats["arena_huge_bytes"] == worker["huge_bytes"], (stats, worker)
            few = worker["huge_bytes"] < worker["arena_bytes"] / 2
            assert worker["huge_bytes"] == 0 if huge == "never" else not few, worker
            assert ("arena_small_pages" in group.log("engine-0", 50)) == few, group.log("engine-0", 50)


def has_huge_pages():
    """The kernel has them for tmpfs, and memory is not too scattered to make some."""
    with mounted_tmpfs("size=64m,huge=always") as folder, open(folder + "/probe", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 32 << 20)
        with open("/proc/meminfo", encoding="ascii") as info:
            return int(re.search(r"^ShmemHugePages:\s+(\d+)", info.read(), re.MULTILINE).group(1)) >= 32 << 10


def main():
    with tempfile.TemporaryDirectory() as where:
        tiny = tiny_model(where)
        with mounted_tmpfs("size=64m") as small:
            test_too_small(tiny, small)
            expected = test_filled_up(tiny, small)
        test_pages(tiny, "never", expected)
        if has_huge_pages():
            test_pages(tiny, "always", expected)
        else:
            print("   no huge pages for tmpfs here: huge=always was not tested", flush=True)
    print("ok")


if __name__ == "__main__":
    watchdog(100)
    main()
