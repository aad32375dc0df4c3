#!/usr/bin/env python3
"""What happens at every limit is written (deploy/README.md, "Limits"), counted, and clear to the client."""

import glob
import os
import re
import resource
import signal
import subprocess
import sys
import time

import omni_shm
from omni_client import Client, hello, new_id
from omni_e2e import BIN, PATIENCE, ROOT, Group, wait_until, watchdog

LONG = {"tokens": [1, 2, 3], "max_tokens": 1900, "ignore_eos": True}
SHORT = [{"tokens": [i, 1, 2], "max_tokens": 24, "ignore_eos": True} for i in range(4)]


def tokens(done):
    return [one["tokens"] for one in done]


def counters(group):
    """From the router's page: a status would take a session."""
    return omni_shm.stats(group.segments, "router", 0)


def answer_to(client, **fields):
    client.send({"t": "generate", "id": new_id(), **{"class": "be"}, **fields})
    while (message := client.receive(20)) is not None and message["t"] == "tokens":
        pass
    return message


def source_of(functions, name, seen):
    """Of a function of a test, and of those of the same file that it calls."""
    seen.add(name)
    text = functions[name]
    return text + "".join(source_of(functions, one, seen) for one in re.findall(r"\b(\w+)\(", text)
                          if one in functions and one not in seen)


def test_table():
    """Every row of the page names counters that programs have, or events that their sources log, and tests that look at
    each of them; a row that only says that nothing happens has none."""
    with Group(1, settings={"engine.offload": "always"}) as group:
        group.start()
        names = {name for page in ("router", "gpu-engine", "cpu-attnd") for name in omni_shm.stats(group.segments, page)}
    sources = "".join(open(path, encoding="utf-8").read() for folder in ("common", "router", "gpu-engine", "cpu-attnd")
                      for path in glob.glob(f"{ROOT}/{folder}/**/*.c", recursive=True))
    with open(os.path.join(ROOT, "deploy/README.md"), encoding="utf-8") as file:
        table = file.read().split("## Limits")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 15 and all(len(row) == 4 for row in rows), rows
    for limit, _, counters_of, tests in rows:
        counted = re.findall(r"(log )?`([^`]+)`", counters_of)
        assert (counted or counters_of.strip() == "-") and "`" in tests, f"{limit}: no counter, or no test"
        tested = ""
        for script, function in re.findall(r"`(\w+)\.(\w+)`", tests):
            with open(os.path.join(ROOT, "tests/e2e", script + ".py"), encoding="utf-8") as file:
                functions = dict(re.findall(r"^def (\w+)\((.*?)(?=^\S|\Z)", file.read(), re.MULTILINE | re.DOTALL))
            assert function in functions, f"{limit}: {script} has no {function}"
            tested += source_of(functions, function, set()) + functions.get("main", "")
        for log, name in counted:
            assert name in names or log and re.search(rf'"{name}["=]', sources), f"{limit}: nobody counts {name}"
            assert re.search(rf"\b{name}\b", tested), f"{limit}: no test looks at {name}"


def test_sessions():
    """router.sessions_max: the next hello is refused, those that are there go on."""
    with Group(0, settings={"router.sessions_max": 3, "engine.offload": "never"}) as group:
        group.start()
        time.sleep(1)  # until the router has seen that `omni status` is gone
        clients = [Client(group) for _ in range(3)]
        refused = hello(group)
        assert refused["t"] == "error" and refused["code"] == "no_capacity" and refused["retryable"], refused
        assert answer_to(clients[0], **SHORT[0])["t"] == "done"
        for client in clients:
            client.__exit__()
        wait_until(lambda: (hello(group) or {}).get("t") == "welcome", 10, "room again")
        wait_until(lambda: counters(group)["sessions_refused"] >= 1, 10, "the refusal is counted")
        wait_until(lambda: counters(group)["sessions_not_dialled"] >= 1, 10, "a welcome that nobody follows ends")


def test_queue_and_context():
    """router.queue_max, engine.ctx_max: refused with the code, the field and whether to try again."""
    settings = {"router.queue_max": "2", "engine.max_seqs": 1, "engine.offload": "never", "engine.ctx_max": 512}
    with Group(0, settings=settings) as group:
        group.start()
        with Client(group) as client:
            ids = [new_id() for _ in range(8)]
            for one in ids:
                client.send({"t": "generate", "id": one, "class": "be", **dict(LONG, max_tokens=400)})
            refused = []
            while len(refused) < 5 and (message := client.receive(10)) is not None:
                refused += [message] if message["t"] == "error" else []
            assert len(refused) == 5, refused
            assert all(one["code"] == "queue_full" and one["retryable"] and one["retry_after_ms"] > 0
                       for one in refused), refused
            by_class = group.status()["classes"]
            assert by_class["be"]["refused"] >= 5 and by_class["be"]["queued"] <= 2, by_class
            wait_until(lambda: counters(group)["be_refused"] >= 5, 5, "the refusals are counted")
        with Client(group) as client:
            wait_until(lambda: group.stats("running") + group.stats("waiting") == 0, 20, "the others ended")
            for fields, field in (({"tokens": [1] * 600, "max_tokens": 1}, "tokens"),
                                  ({"prompt": "long " * 600}, "prompt"),
                                  ({"tokens": [1] * 300, "max_tokens": 300}, "max_tokens")):
                said = answer_to(client, **fields)
                assert said["code"] == "too_long" and said["field"] == field and not said["retryable"], said
                assert "512" in said["message"], said
            wait_until(lambda: counters(group)["be_refused"] >= 8, 5, "these are counted as well")


def test_sequences():
    """engine.max_seqs: more BE waits in the router's queue; LS has a place kept, and without one is refused for now."""
    for n_seqs, word, counter in ((8, "done", "ls_length"), (1, "error", "ls_refused")):
        settings = {"engine.max_seqs": n_seqs, "engine.offload": "never"}
        with Group(1, settings=settings) as group:
            group.start()
            process = group.run_begin([dict(LONG, tokens=[i]) for i in range(12)])
            wait_until(lambda: counters(group)["be_queued"] > 0 and group.stats("running") > 0, 10, "some BE waits")
            with Client(group) as client:
                for _ in range(10):  # BE may end just then, and leave its place
                    said = answer_to(client, **{"class": "ls", "ttft_slo_ms": 20000.0 if n_seqs > 1 else 1.0, **SHORT[1]})
                    if said["t"] == word:
                        break
            assert said["t"] == word, said
            assert word == "done" or (said["code"] == "overloaded" and said["retry_after_ms"] > 0), said
            wait_until(lambda name=counter: counters(group)[name] >= 1, 5, "it is counted")
            process.kill()
            process.wait()
            group.expect_all_free()


def test_kv():
    """More than the KV memory could ever hold is refused at the door; what fits, if alone, waits its turn."""
    with Group(1, settings={"engine.kv_blocks": 6, "worker.arena_mb": 1, "engine.offload": "never"}) as group:
        group.start()
        with Client(group) as client:
            said = answer_to(client, tokens=[1] * 200, max_tokens=100)
            assert said["code"] == "no_capacity" and said["field"] == "max_tokens", said
            wait_until(lambda: counters(group)["be_refused"] == 1, 5, "the refusal is counted")
        done = group.run([dict(SHORT[0], max_tokens=120, tokens=[i] * 20) for i in range(6)])
        assert all(one["output_tokens"] == 120 for one in done), done
        group.expect_all_free()


def test_slots():
    """More best effort than job slots: two at a time are resident, the others wait, all end."""
    with Group(1, settings={"worker.slots": 2, "engine.offload": "always"}) as group:
        group.start()
        assert group.stats("slots_free") == 2, group.stats()
        process = group.run_begin([dict(SHORT[0], max_tokens=1000, tokens=[i] * 20) for i in range(6)])
        wait_until(lambda: group.stats("slots_free") == 0, 20, "no slot is free")
        done = group.run_end(process)
        assert all(one["output_tokens"] == 1000 for one in done), done
        group.expect_all_free()
        assert group.stats("slots_free") == 2 and group.stats("tokens_worker") > 0, group.stats()


def test_files():
    """ulimit -n 64: as many sessions as descriptors allow, said in the log; engine and worker need no more."""
    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with Group(1, settings={"engine.offload": "always"}) as group:
        for name in group.programs():
            group.start_program(name, preexec=few_files)
        group.wait_ready()
        assert "sessions_limited" in group.log("router", 50) and "ulimit -n" in group.log("router", 50)
        wait_until(lambda: 1 <= counters(group)["sessions_max"] < 16, 5, "so many sessions fit")
        first = tokens(group.run(SHORT))
        with Client(group):
            said = [hello(group) for _ in range(20)]
            assert said[0]["t"] == "welcome" and all(one["t"] in ("welcome", "error") for one in said), said
            refused = [one for one in said if one["t"] == "error"]
            assert refused and all(one["code"] == "no_capacity" and one["retryable"] for one in refused), said
            wait_until(lambda: counters(group)["sessions_refused"] >= len(refused), 5, "the refusals are counted")
        for name in ("engine-0", "attnd-0"):
            assert len(os.listdir(f"/proc/{group.running[name].pid}/fd")) < 24, f"{name} has many files open"
        time.sleep(3 * PATIENCE)  # those that nobody dialled are closed again after a lease
        assert tokens(group.run(SHORT)) == first
        assert "accept" not in group.log("router", 200), group.log("router", 200)


def on_one_core(expected):
    core = sorted(os.sched_getaffinity(0))[0]
    with Group(1, model=expected["model"], settings={"engine.offload": "always"}) as group:
        for name in group.programs():
            group.start_program(name, preexec=lambda: os.sched_setaffinity(0, {core}))
        group.wait_ready()
        assert tokens(group.run(SHORT)) == expected["tokens"], "one core: other tokens"
        assert tokens(group.run(SHORT, "ls")) == expected["tokens"]
        worker = omni_shm.stats(group.segments, "cpu-attnd")
        assert (group.stats("cpus"), group.stats("cpus_own"), worker["cpus_own"]) == (1, 0, 0), (group.stats(), worker)


def without_topology(expected):
    """hwloc finds nothing of this machine, or counts its cpus (as in some containers): one node of what may be used."""
    for components in ("stop", "no_os,stop"):
        with Group(1, model=expected["model"], env={"HWLOC_COMPONENTS": components},
                   settings={"engine.offload": "always"}) as group:
            group.start()
            assert tokens(group.run(SHORT)) == expected["tokens"], "no topology: other tokens"
            assert group.stats("nodes") == 1 and group.stats("cpus") == len(os.sched_getaffinity(0)), group.stats()
            for name in ("engine-0", "attnd-0"):
                assert "topology_unknown" in group.log(name, 50), group.log(name, 50)


def without_huge_pages(expected):
    """4 KiB pages do; status says how much of an arena is huge, and it is none or all of it."""
    with Group(1, model=expected["model"], settings={"engine.offload": "always"}) as group:
        group.start()
        assert tokens(group.run(SHORT)) == expected["tokens"]
        worker = group.status()["engines"][0]["workers"][0]
        assert 0 <= worker["huge_bytes"] <= worker["arena_bytes"], worker
        assert group.stats("arena_huge_bytes") == worker["huge_bytes"], (group.stats(), worker)
        small = worker["huge_bytes"] < worker["arena_bytes"] / 2
        assert ("arena_small_pages" in group.log("engine-0", 50)) == small, group.log("engine-0", 50)
        print(f"   {worker['huge_bytes']} of {worker['arena_bytes']} arena bytes in huge pages", flush=True)


def preload(library):
    """For LD_PRELOAD: a sanitizer's runtime wants to be the first."""
    linked = subprocess.run(["ldd", os.path.join(BIN, "omni-router")], capture_output=True, text=True, check=True).stdout
    return ":".join(re.findall(r"=> (\S*/lib[at]san\.so\S*)", linked) + [os.path.join(BIN, library)])


def with_a_clock_that_jumps(expected):
    """Wall-clock time jumps by a day, there and back, at every look of every program: nothing changes."""
    # asan would like to come first.
    env = {"LD_PRELOAD": os.path.join(BIN, "clock_jump.so"),
           "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
    with Group(1, model=expected["model"], env=env, settings={"engine.offload": "always"}) as group:
        group.start()
        began = time.monotonic()
        done = group.run(SHORT)
        assert tokens(done) == expected["tokens"] and time.monotonic() - began < 20 * PATIENCE
        assert all(0 < one["ttft_ms"] < 60000 * PATIENCE for one in done), done
        days = {line[:10] for line in group.log("router", 100).splitlines() if re.match(r"\d{4}-", line)}
        assert len(days) > 1, f"the clock did not jump: {days}"
        assert "clock_jumped_s=" in group.log("router", 50), group.log("router", 50)
        wait_until(lambda: counters(group)["clock_jumps"] > 0, 5, "the jumps are counted")


def test_clocks_in_sources():
    """The wall clock is for the log alone."""
    users = [path for folder in ("common", "proto", "router", "gpu-engine", "cpu-attnd")
             for path in glob.glob(f"{ROOT}/{folder}/**/*.[ch]", recursive=True)
             if re.search(r"CLOCK_REALTIME|gettimeofday|[^_a-z]time\(NULL\)", open(path, encoding="utf-8").read())]
    allowed = [os.path.join(ROOT, "common/base/log.c")]
    others = [one for one in users if one not in allowed]
    assert not others, f"the wall clock is used by {others}"


def expect_claimed_cores(first, second):
    """The second one is told of the cores that the first has for itself, and spins nowhere there."""
    if len(os.sched_getaffinity(0)) < 2:
        print("   one core: nobody has a core for itself, so no claims were tested", flush=True)
        return
    for name, page in (("attnd-0", "cpu-attnd"), ("engine-0", "gpu-engine")):
        assert name != "attnd-0" or "pinned=1" in first.log(name, 50), first.log(name, 50)
        assert "cores_claimed_by_others" in second.log(name, 50), second.log(name, 50)
        stats = omni_shm.stats(second.segments, page)
        assert stats["cpus_claimed"] > 0 and stats["cpus_own"] == 0, stats  # no fight


def test_two_groups(expected):
    """Side by side on one machine, sharing nothing; both serve, and one's end is nothing to the other."""
    with Group(1, model=expected["model"], settings={"engine.offload": "always"}) as one:
        with Group(1, model=expected["model"], settings={"engine.offload": "always"}) as two:
            two.name += "b"
            two.env["XDG_RUNTIME_DIR"] = two.dir  # as one who is logged in beside one who is not
            two.write_config({"engine.offload": "always"})
            one.start()
            two.start()
            expect_claimed_cores(one, two)
            processes = [group.run_begin(SHORT * 4) for group in (one, two) for _ in range(2)]
            for process, group in zip(processes, (one, one, two, two)):
                assert tokens(group.run_end(process)) == expected["tokens"] * 4, "two groups: other tokens"
            process = one.run_begin([dict(LONG, max_tokens=600)])
            two.signal("engine-0", signal.SIGKILL)
            two.signal("router", signal.SIGKILL)
            assert one.run_end(process)[0]["output_tokens"] == 600
            two.omni("clean")
            assert tokens(one.run(SHORT)) == expected["tokens"]


class MemoryLimit:
    """A control group of this machine (version 1 or 2) with a limit, for one program; None where it may not be made."""

    def __init__(self, n_bytes):
        for root, limit in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
            folder = os.path.join(root, f"omni-test-{os.getpid()}")
            try:
                os.mkdir(folder)
                self.folder, self.limit = folder, limit
                self.set(n_bytes)
                return
            except OSError:
                if os.path.isdir(folder):
                    os.rmdir(folder)
        self.folder = None

    def set(self, n_bytes):
        with open(os.path.join(self.folder, self.limit), "r+", encoding="ascii") as file:
            file.write(str(n_bytes))

    def used(self):
        name = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}[self.limit]
        with open(os.path.join(self.folder, name), encoding="ascii") as file:
            return int(file.read())

    def enter(self):
        with open(os.path.join(self.folder, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write(str(os.getpid()))

    def close(self):
        if self.folder is not None:
            wait_until(lambda: open(self.folder + "/cgroup.procs", encoding="ascii").read() == "", 10, "nobody in it")
            os.rmdir(self.folder)


def kill_by_memory(group, limit):
    """Somebody else in the control group takes all that is left of it; the kernel kills the engine."""
    process = group.running["engine-0"]
    with open(f"/proc/{process.pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")  # it goes before the one that asks
    limit.set(limit.used() + (32 << 20))
    hog = subprocess.Popen([sys.executable, "-c", "x = b'x' * (128 << 20); input()"], stdin=subprocess.PIPE,
                           preexec_fn=limit.enter)
    try:
        process.wait(30 * PATIENCE)
    finally:
        hog.communicate(b"\n")
    del group.running["engine-0"]
    assert process.returncode == -signal.SIGKILL, process.returncode


def with_a_memory_limit(expected):
    """An arena that a control group has no room for is refused, with the remedy.  What the kernel kills for its memory concerns nobody else: clients know, and it serves
    again where it has room."""
    limit = MemoryLimit(24 << 20)
    try:
        if limit.folder is None:
            print("   no memory control group may be made here: not tested", flush=True)
            return
        settings = {"engine.offload": "always", "worker.arena_mb": 64}
        with Group(1, model=expected["model"], settings=settings) as group:
            for name in ("router", "attnd-0"):
                group.start_program(name)
            process = group.start_program("engine-0", preexec=limit.enter)
            process.wait(30 * PATIENCE)
            del group.running["engine-0"]
            said = group.log("engine-0", 50)
            assert process.returncode > 0, f"engine under a limit of 24 MiB: {process.returncode}\n{said}"
            assert re.search(r"cannot_go_on .*arena.*needs \d.*free are \d.*control group.*memory\.max", said), said
            assert "no engine" in group.omni("run", "--prompt-file", group.config, "--class", "ls").stderr
            limit.set(1 << 30)
            group.start_program("engine-0", preexec=limit.enter)
            group.wait_ready()
            assert tokens(group.run(SHORT)) == expected["tokens"]
            client, lost = group.run_begin([LONG] * 4), counters(group)["engines_lost"]
            wait_until(lambda: group.stats("running") + group.stats("resident") == 4, 20, "under way")
            kill_by_memory(group, limit)
            code, done, _ = group.run_wait(client)
            assert code == 1 and {one["error"]["code"] for one in done} == {"engine_lost"}, done
            wait_until(lambda: counters(group)["engines_lost"] == lost + 1, 5, "the loss is counted")
            group.start()
            assert tokens(group.run(SHORT)) == expected["tokens"]
    finally:
        limit.close()


def main():
    test_clocks_in_sources()
    test_table()
    test_sessions()
    test_sequences()
    test_queue_and_context()
    test_kv()
    test_slots()
    test_files()
    with Group(0, settings={"engine.offload": "never"}) as group:
        group.start()
        kept = os.path.join("/tmp", f"omni-limits-{os.getpid()}.gguf")
        os.rename(group.model, kept)
        expected = {"model": kept, "tokens": tokens(group.run(SHORT))}
    try:
        for case in (on_one_core, without_topology, without_huge_pages, with_a_clock_that_jumps, with_a_memory_limit,
                     test_two_groups):
            case(expected)
            print(f"   {case.__name__}", flush=True)
    finally:
        os.unlink(kept)
    print("ok")


if __name__ == "__main__":
    watchdog(170)
    main()
