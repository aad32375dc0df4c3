#!/usr/bin/env python3
"""The C client (omni, over the client library) under valgrind, against a real group and through a restart of its router:
every access is in bounds, and no memory is lost: none without a pointer to it, nor with one into its middle.  Skipped
without valgrind, and under sanitizers."""

import shutil
import signal
import subprocess

from omni_e2e import PATIENCE, Group, program, skip, wait_until, watchdog

KINDS = "definite,indirect,possible"
VALGRIND = ["valgrind", "-q", "--leak-check=full", f"--show-leak-kinds={KINDS}", f"--errors-for-leak-kinds={KINDS}",
            "--error-exitcode=99"]
ASK = '{"tokens": [1, 2, 3], "max_tokens": %d, "ignore_eos": true}\n'


class Checked:
    """`omni run` of some requests, under valgrind."""

    def __init__(self, group, n_tokens):
        self.path = f"{group.dir}/ask.jsonl"
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(ASK % n_tokens * 4)
        self.process = subprocess.Popen([*VALGRIND, program("omni"), "run", "--class", "be", "--json", "--prompt-file",
                                         self.path, "--config", group.config], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)

    def expect(self, code, word):
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == code and out.count(word) == 4, f"{self.process.returncode}\n{out}\n{err}"
        assert "==" not in err, err


def expect_chat(group):
    """A question, its answer as it comes, and one that is broken off by Ctrl-C."""
    command = [*VALGRIND, program("omni"), "chat", "--config", group.config, "--max-tokens"]
    done = subprocess.run([*command, "20", "hello"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "==" not in done.stderr, (done.returncode, done.stderr)
    with subprocess.Popen([*command, "1900", "hello"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode != 99 and b"==" not in err, (process.returncode, err)


def main():
    if shutil.which("valgrind") is None:
        skip("no valgrind")
    if PATIENCE > 1:
        skip("valgrind and sanitizers do not go together")
    with Group(1, settings={"engine.offload": "always"}) as group:
        group.start()
        Checked(group, 20).expect(0, '"length"')
        expect_chat(group)
        lost = Checked(group, 1900)
        wait_until(lambda: group.stats("running") + group.stats("resident") == 4, 60, "under way")
        group.signal("router", signal.SIGKILL)
        lost.expect(1, '"router_lost"')
        group.start_program("router")
        group.wait_ready()
        Checked(group, 20).expect(0, '"length"')
    print("ok")


if __name__ == "__main__":
    watchdog(150)
    main()
