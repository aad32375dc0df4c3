"""For end-to-end tests in Python: a group of real programs, started one by one.

Unlike lib.sh there is no supervisor: the test itself starts, stops, kills and restarts programs, and
so knows exactly which process serves when.

    with Group(n_workers=2, settings={"engine.offload": "always"}) as group:
        group.start()                       # all programs, and waits until they are ready
                                            # (without a profile unless the settings ask for one: PROFILE)
        done = group.run([{"prompt": "hello", "max_tokens": 16}], cls="be")
        group.signal("attnd-0", signal.SIGKILL)
        group.start_program("attnd-0")
    # leaving the block checks that every program ended and that no segment is left

OMNI_BIN_DIR names the programs (ctest sets it).  A missing program skips the test (exit 77).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("OMNI_BIN_DIR", os.path.join(ROOT, "build/release/bin"))
# Sanitizers make programs several times slower; ctest's presets may raise this.
PATIENCE = float(os.environ.get("OMNI_TEST_PATIENCE", "1"))
# Settings of a test in which deadlines matter; the profile is kept for the next one, beside the programs.
PROFILE = {"engine.profile": "auto", "engine.profile_dir": os.path.join(os.path.dirname(BIN), "test-profiles")}
PROGRAM_OF = {"router": "omni-router", "engine": "omni-gpu-engine", "attnd": "omni-cpu-attnd"}

sys.path.insert(0, os.path.join(ROOT, "deploy/lib"))
import group_probe  # noqa: E402  (one definition of "ready" for users and tests)
import omni_shm  # noqa: E402


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def program(name):
    path = os.path.join(BIN, name)
    if not os.access(path, os.X_OK):
        skip(f"{path} is not built")
    return path


def demo_path():
    """The real model, where ./tests/run or an earlier quickstart fetched it, or None."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.environ.get("OMNI_DEMO_MODEL") or os.path.join(
        cache, "omniserve/SmolLM2-135M-Instruct.Q4_1.gguf")
    return path if os.path.isfile(path) else None


def demo_model():
    return demo_path() or skip("no demo model (./tests/run fetches it)")


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds * PATIENCE
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds * PATIENCE:.0f} s: {what}")
        time.sleep(0.05)
    return value


def tiny_model(folder, *options, name="tiny.gguf"):
    path = os.path.join(folder, name)
    subprocess.run([program("omni-tiny-model"), path, *options], check=True, stdout=subprocess.DEVNULL)
    return path


class Group:
    """One group in a folder of its own.  All methods may be called from one thread at a time."""

    def __init__(self, n_workers=1, model=None, settings=None, env=None, n_engines=1):
        self.dir = tempfile.mkdtemp(prefix="omni-e2e.", dir="/tmp")
        self.name = f"t{os.getpid()}"
        self.shm = tempfile.mkdtemp(prefix="omni-e2e.", dir="/dev/shm")
        self.config = os.path.join(self.dir, "group.ini")
        self.n_engines, self.n_workers = n_engines, n_workers
        self.env = dict(os.environ, **(env or {}))
        self.running = {}
        self.model = model or tiny_model(self.dir)
        self.write_config(settings or {})

    @property
    def segments(self):
        """Folder of this group's shared memory, for omni_shm."""
        return os.path.join(self.shm, self.name)

    def write_config(self, settings):
        every = {"group.name": self.name, "group.n_engines": self.n_engines, "group.n_workers": self.n_workers,
                 "model.path": self.model, "engine.profile": "off",
                 "run.dir": os.path.join(self.dir, "run"), "shm.dir": self.shm,
                 "engine.kv_mb": 16, "worker.arena_mb": 16,
                 "engine.block_tokens": 32,  # so that short prompts have several
                 "slo.admission": "no",  # nobody is refused because a machine is busy; its tests turn it on
                 "engine.policy": "group",  # tests say by engine.offload where attention runs
                 "engine.device": os.environ.get("OMNI_TEST_DEVICE", "cpu"),
                 **settings}
        sections = {}
        for key, value in every.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, []).append(f"{name} = {value}\n")
        os.makedirs(every["run.dir"], mode=0o700, exist_ok=True)
        with open(self.config, "w", encoding="utf-8") as file:
            for section, lines in sections.items():
                file.write(f"[{section}]\n" + "".join(lines))

    @property
    def run_dir(self):
        """Folder of this group's sockets."""
        return os.path.join(self.dir, "run", self.name)

    # ---- programs ----

    def programs(self):
        return (["router"] + [f"engine-{i}" for i in range(self.n_engines)] +
                [f"attnd-{i}" for i in range(self.n_workers)])

    def start(self, seconds=30):
        for name in self.programs():
            if name not in self.running:
                self.start_program(name)
        self.wait_ready(seconds)

    def start_program(self, name, env=None, preexec=None):
        """(Re)starts one; env adds to the group's, for a fault point; preexec runs in it before it begins."""
        kind, _, index = name.partition("-")
        command = [program(PROGRAM_OF[kind]), "--config", self.config]
        command += ["--index", index] if index else []
        with open(os.path.join(self.dir, name + ".log"), "ab") as log:
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(self.env, **(env or {})),
                preexec_fn=preexec)
        return self.running[name]

    def signal(self, name, number):
        """Sends it; after SIGKILL or SIGTERM it also waits for the end."""
        process = self.running[name]
        process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(10 * PATIENCE)
            del self.running[name]

    def wait_ready(self, seconds=30):
        omni = program("omni")

        def ready():
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended with {process.returncode}\n{self.log(name)}")
            status = group_probe.status_of(omni, self.config)
            # Just after a kill the router may still show the engine that was.
            return (not group_probe.missing_parts(status, self.n_engines, self.n_workers) and
                    all(status["engines"][i]["pid"] == self.running[f"engine-{i}"].pid
                        for i in range(self.n_engines)))
        wait_until(ready, seconds, "group ready")

    def log(self, name, lines=20):
        try:
            with open(os.path.join(self.dir, name + ".log"), encoding="utf-8", errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except FileNotFoundError:
            return ""

    # ---- the client ----

    def omni(self, *arguments, **options):
        return subprocess.run([program("omni"), *arguments, "--config", self.config],
                              capture_output=True, text=True, check=False, **options)

    def status(self):
        return json.loads(self.omni("status", "--json").stdout)

    def run_begin(self, requests, cls="be", chat=False, options=()):
        """Starts `omni run` over the requests (dicts, as lines of a prompt file); see run_end."""
        prompts = tempfile.NamedTemporaryFile("w", suffix=".jsonl", dir=self.dir, delete=False)
        with prompts as file:
            file.writelines(json.dumps(request) + "\n" for request in requests)
        command = [program("omni"), "run", "--config", self.config, "--class", cls, "--json",
                   "--prompt-file", prompts.name, *options] + (["--chat"] if chat else [])
        # Into files: a pipe that nobody reads would hold the client up.
        with open(prompts.name + ".out", "wb") as out, open(prompts.name + ".err", "wb") as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        process.output = prompts.name
        return process

    def run_wait(self, process, seconds=60):
        """(exit code, results so far in the order of the requests, stderr) of run_begin."""
        process.wait(timeout=seconds * PATIENCE)
        with open(process.output + ".out", encoding="utf-8") as out, \
                open(process.output + ".err", encoding="utf-8") as err:
            return process.returncode, [json.loads(line) for line in out if line.strip()], err.read()

    def run_end(self, process, seconds=60):
        """The results in the order of the requests; an AssertionError tells what the client said."""
        code, done, err = self.run_wait(process, seconds)
        if code != 0:
            raise AssertionError(f"omni run: exit {code}\n{err}\n{done[-3:]}")
        return done

    def run(self, requests, cls="be", chat=False, seconds=60, options=()):
        return self.run_end(self.run_begin(requests, cls, chat, options), seconds)

    # ---- looking inside ----

    def stats(self, name=None, engine=0):
        """An engine's statistics page; gauges are set four times a second."""
        page = omni_shm.stats(self.segments, "gpu-engine", engine)
        return page if name is None else page[name]

    def expect_all_free(self, seconds=10):
        """Waits until no engine holds anything: no sequence, no block, no slot."""
        def is_free(engine):
            now = self.stats(engine=engine)
            return (now["kv_blocks_free"] == now["kv_blocks_total"] and now["draining"] == 0 and
                    now["arena_blocks_free"] == now["arena_blocks_total"] and
                    now["waiting"] + now["running"] + now["resident"] == 0)
        try:
            wait_until(lambda: all(is_free(i) for i in range(self.n_engines)), seconds,
                       "the engine has given everything back")
        except AssertionError as error:
            held = [self.stats(engine=i) for i in range(self.n_engines)]
            raise AssertionError(f"{error}: {held}") from None

    # ---- the end ----

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        left = self.stop_all()
        if kind is not None:
            for name in self.programs():
                print(f"--- {name}\n{self.log(name)}", file=sys.stderr)
        self.omni("clean")
        segments = [os.path.join(where, one) for where, _, names in os.walk(self.shm) for one in names]
        shutil.rmtree(self.shm, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        if kind is None:
            assert not left, f"did not end on SIGTERM: {left}"
            assert not segments, f"segments left: {segments}"

    def stop_all(self):
        """SIGTERM to all, SIGKILL to what does not end within 10 s; the names of those."""
        left = []
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        for name, process in self.running.items():
            try:
                process.wait(10 * PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                left.append(name)
        self.running.clear()
        return left


class LsLoad:
    """Latency-sensitive chats beside something else: batch after batch until stopped, each compared
    with what it must answer.  The first failure is kept and raised by the end of the block."""

    def __init__(self, group, requests, expected=None, at_least=1):
        self.group, self.requests, self.expected, self.at_least = group, requests, expected, at_least
        self.n_batches, self.error, self.stopping = 0, None, False
        self.tpot_ms = []  # of every request so far
        self.thread = threading.Thread(target=self.work)

    def work(self):
        try:
            while not self.stopping or self.n_batches < self.at_least:
                done = self.group.run(self.requests, "ls")
                tokens = [one["tokens"] for one in done]
                self.expected = self.expected or tokens
                assert tokens == self.expected, "LS answers changed"
                self.tpot_ms += [one["tpot_ms"] for one in done]
                self.n_batches += 1
        except BaseException as error:  # the thread's end is no place to raise
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, value, trace):
        self.stopping = True
        self.thread.join()
        if self.error is not None:
            raise self.error from value


def watchdog(seconds):
    """Ends the test with a stack trace rather than by ctest's SIGKILL, so that groups are cleaned up."""
    def bark():
        import faulthandler
        faulthandler.dump_traceback()
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(seconds * PATIENCE, bark)
    timer.daemon = True
    timer.start()
