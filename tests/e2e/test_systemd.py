#!/usr/bin/env python3
"""The systemd units are sound and what their page says makes a group of them; the programs speak systemd's protocol:
READY when they serve, a reload on SIGHUP that says what it could not do, STOPPING and a clean end on SIGTERM.

    test_systemd.py units|protocol
"""

import glob
import os
import shutil
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

from omni_e2e import BIN, PATIENCE, ROOT, Group, program, skip, wait_until, watchdog

UNITS = os.path.join(ROOT, "deploy/systemd")
INSTANCES = {"omni-router@.service": "chat", "omni-engine@.service": "chat-0", "omni-attnd@.service": "chat-0"}


def test_installation():
    """What the page says to type, below a folder: the programs agree on a group that has its name and its sockets where
    the units make room for them."""
    with open(UNITS + "/README.md", encoding="utf-8") as file:
        lines = re.findall(r"^    (.*)$", file.read(), re.MULTILINE)
    typed = [line for line in lines if not line.startswith(("useradd", "systemctl"))]
    enabled = re.findall(r"omni-(\w+)@(\S+)", next(line for line in lines if line.startswith("systemctl enable")))
    assert len(typed) >= 4 and {kind for kind, _ in enabled} == {"router", "engine", "attnd"}, lines
    with tempfile.TemporaryDirectory() as folder:
        for one in ("/usr/bin", "/etc/systemd/system"):
            os.makedirs(folder + one)
        script = re.sub(r"(?<=\s)(/usr/bin|/etc)\b", folder + r"\1", "\n".join(typed))
        subprocess.run(["sh", "-euc", script.replace("build/release/bin", BIN)], cwd=ROOT, check=True, timeout=60)
        for kind, instance in enabled:
            with open(f"{folder}/etc/systemd/system/omni-{kind}@.service", encoding="utf-8") as file:
                unit = file.read()
            binary = re.search(r"/usr/bin/(omni-[\w-]+)", unit).group(1)
            command = [f"{folder}/usr/bin/{binary}", "--config", f"{folder}/etc/omni/{instance.split('-')[0]}.ini"]
            subprocess.run([*command, "--check-config"], check=True, capture_output=True)
            said = subprocess.run([*command, "--print-run-dir"], check=True, capture_output=True, text=True).stdout
            room = "/run/" + re.search(r"^RuntimeDirectory=(\S+)$", unit, re.MULTILINE).group(1)
            assert said.strip() == f"{room}/{instance.split('-')[0]}", f"{binary}: {said}"


def test_units():
    """As installed, but with the programs of this build: a program that is not there is a complaint of its own."""
    if shutil.which("systemd-analyze") is None:
        skip("no systemd-analyze here: the page's lines do what they say, the units were not checked")
    with tempfile.TemporaryDirectory() as folder:
        for path in glob.glob(UNITS + "/omni*"):
            with open(path, encoding="utf-8") as file:
                text = file.read()
            assert path.endswith(".target") or ("KillMode=control-group" in text and "Type=notify" in text), path
            with open(os.path.join(folder, os.path.basename(path)), "w", encoding="utf-8") as file:
                file.write(text.replace("/usr/bin/omni", BIN + "/omni").replace("User=omni", "User=root"))
        units = [os.path.join(folder, name.replace("@", "@" + instance)) for name, instance in INSTANCES.items()]
        for name, unit in zip(INSTANCES, units):
            shutil.copy(os.path.join(folder, name), unit)
        checked = subprocess.run(["systemd-analyze", "verify", "--man=no", *units, folder + "/omni.target"],
                                 capture_output=True, text=True, timeout=60, check=False,
                                 env=dict(os.environ, SYSTEMD_UNIT_PATH=folder + ":"))
        about_us = [line for line in checked.stderr.splitlines() if "omni" in line]
        assert checked.returncode == 0 and not about_us, checked.stderr
        expect_command_line(folder)


def expect_command_line(folder):
    """What the shell makes of an engine's instance name."""
    with open(os.path.join(folder, "omni-engine@.service"), encoding="utf-8") as file:
        line = next(one for one in file if one.startswith("ExecStart="))
    script = line.split("'")[1].replace("$$", "$").replace("%%", "%")
    said = subprocess.run(["sh", "-c", script.replace("exec " + BIN + "/omni-gpu-engine", "echo"), "sh", "chat-12"],
                          capture_output=True, text=True, check=True).stdout
    assert said.split() == ["--config", "/etc/omni/chat.ini", "--index", "12"], said


class Manager:
    """The other end of NOTIFY_SOCKET, of one program."""

    def __init__(self, folder, name):
        self.path = os.path.join(folder, name + ".notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def expect(self, *states):
        self.socket.settimeout(20 * PATIENCE)
        for state in states:
            said = self.socket.recv(4096).decode()
            assert said == state, f"{self.path}: expected {state}, got {said}"


def test_notify():
    with Group(1) as group:
        managers = {name: Manager(group.dir, name) for name in group.programs()}
        for name, manager in managers.items():
            group.start_program(name, {"NOTIFY_SOCKET": manager.path})
        for manager in managers.values():
            manager.expect("READY=1")
        group.wait_ready()
        expected = group.run([{"prompt": "hello", "max_tokens": 8}])[0]["tokens"]
        test_reload(group, managers)
        assert group.run([{"prompt": "hello", "max_tokens": 8}])[0]["tokens"] == expected
        for name, manager in managers.items():
            process = group.running[name]
            began = time.monotonic()
            group.signal(name, signal.SIGTERM)
            manager.expect("STOPPING=1")
            assert process.returncode == 0, f"{name} ended with {process.returncode} on SIGTERM"
            print(f"   {name} ended {time.monotonic() - began:.2f} s after SIGTERM", flush=True)


def test_reload(group, managers):
    """log.level is taken over; what cannot be is named; what is not valid changes nothing."""
    group.write_config({"log.level": "debug", "router.result_keep_s": 7, "engine.kv_mb": 32})
    for name, manager in managers.items():
        group.signal(name, signal.SIGHUP)
        manager.expect("RELOADING=1", "READY=1")
        log = group.log(name, 200)
        assert "option_reloaded option=log.level" in log, f"{name}: {log}"
        assert "option_needs_restart option=engine.kv_mb" in log, f"{name}: {log}"
        kept = "option_reloaded" if name == "router" else "option_needs_restart"
        assert f"{kept} option=router.result_keep_s" in log, f"{name}: {log}"
    group.write_config({"log.level": "no such level"})
    for name, manager in managers.items():
        group.signal(name, signal.SIGHUP)
        manager.expect("RELOADING=1", "READY=1")
        wait_until(lambda one=name: "config_not_reloaded" in group.log(one, 200), 5, f"{name} says so")
    group.write_config({})


def main():
    program("omni-router")
    if sys.argv[1] == "units":
        test_installation()
        test_units()
    else:
        test_notify()
    print("ok")


if __name__ == "__main__":
    watchdog(100)
    main()
