#!/usr/bin/env python3
"""Workers that die, stop, and wake too late, in the middle of 16 BE generations beside an LS stream.

Every BE request ends with the tokens of an undisturbed run, LS sees no error, no KV is computed again, and no
arena block named by a job that is out changes hands (its owner tag is compared, in shared memory)."""

import signal
import time

import omni_shm
from omni_e2e import Group, LsLoad, wait_until, watchdog

N_BE, N_TOKENS = 16, 240
VICTIM = "attnd-0"
# Steps of a job's life in the worker, and of attaching; the number is the pass at which it dies.
JOB_STEPS = {"worker.job": 150, "worker.appended": 150, "worker.attended": 150, "job_worker.output": 150,
             "job_worker.done": 150, "job_worker.done_word": 150, "job_worker.announced": 150,
             "job_worker.woken": 20}
ATTACH_STEPS = {"segment.attached": 2, "job_table.role_taken": 1, "job_table.worker_announced": 1,
                "job_table.ring_skipped": 1}
# Where a stopped worker still has writes before it: of the KV, of the output, of the slot's word, of the
# done word (the engine may have taken the job and freed its slot by then).
STOP_STEPS = ["worker.job", "worker.appended", "job_worker.output", "job_worker.done"]

BE = [{"tokens": [(7 * i + j) % 251 for j in range(3 + 5 * i)], "max_tokens": N_TOKENS, "ignore_eos": True}
      for i in range(N_BE)]
LS = [{"prompt": f"chat {i}", "max_tokens": 40, "ignore_eos": True} for i in range(2)]


def tokens(done):
    return [one["tokens"] for one in done]


class Scene:
    """A group, and what its requests answer when nothing disturbs them."""

    def __init__(self, group):
        self.group = group
        self.be = tokens(group.run(BE))
        self.ls = tokens(group.run(LS, "ls"))
        assert group.stats("tokens_worker") > N_BE * N_TOKENS / 2, group.stats()

    def begin(self):
        """Starts the generations and waits until they are well under way."""
        before = self.group.stats("jobs_posted")
        process = self.group.run_begin(BE)
        wait_until(lambda: self.group.stats("jobs_posted") > before + 1500, 20, "BE under way")
        assert process.poll() is None, "the generations were over before the fault: give them more tokens"
        return process

    def end(self, process, what):
        done = tokens(self.group.run_end(process))
        wrong = [i for i in range(N_BE) if done[i] != self.be[i]]
        assert not wrong, f"{what}: other tokens in requests {wrong}"
        stats = self.group.stats()
        assert stats["recomputed_tokens"] == stats["jobs_failed"] == stats["failed"] == 0, f"{what}: {stats}"
        self.group.expect_all_free()

    def held(self):
        return omni_shm.held(self.group.segments, 0)

    def expect_held(self, before, what):
        """All jobs that were out are out still, and name the same blocks with the same owners."""
        now = self.held()
        for key, names in before.items():
            assert now.get(key) == names, f"{what}: slot {key[0]} named {names}, now {now.get(key)}"

    def stop(self):
        """SIGSTOP to the victim, with jobs before it; what they hold."""
        self.group.signal(VICTIM, signal.SIGSTOP)
        return wait_until(self.held, 5, "jobs go to the worker that stands still")

    def restart(self, env=None):
        self.group.start_program(VICTIM, env)

    def expect_death(self, what):
        process = self.group.running[VICTIM]
        wait_until(lambda: process.poll() is not None, 20, what)
        assert process.returncode == -signal.SIGKILL, f"{what}: {VICTIM} ended with {process.returncode}"
        del self.group.running[VICTIM]

    def jobs_rerun(self):
        return omni_shm.jobs_rerun(self.group.segments, 0)


def test_kill(scene):
    rerun = scene.jobs_rerun()
    process = scene.begin()
    scene.group.signal(VICTIM, signal.SIGKILL)
    before = wait_until(scene.held, 5, "jobs are out at the dead worker")
    time.sleep(0.5)
    scene.expect_held(before, "dead worker")
    scene.restart()
    scene.end(process, "kill -9")
    print(f"   kill -9: {len(before)} jobs were out, {scene.jobs_rerun() - rerun} ran again", flush=True)
    assert scene.jobs_rerun() > rerun


def test_stop(scene, chats):
    process = scene.begin()
    n_chats, before = chats.n_batches, scene.stop()
    time.sleep(5)
    assert process.poll() is None, "all BE ended although a worker stood still"
    during = scene.group.status()["engines"][0]["workers"][0]
    assert during["state"] == "late", during
    scene.expect_held(before, "stopped worker")
    scene.group.signal(VICTIM, signal.SIGCONT)
    scene.end(process, "SIGSTOP for 5 s")
    print(f"   SIGSTOP 5 s: {len(before)} jobs were out; {chats.n_batches - n_chats} LS batches meanwhile", flush=True)
    assert chats.n_batches > n_chats


def test_steps(scene):
    for label, n in {**JOB_STEPS, **ATTACH_STEPS}.items():
        process = scene.begin()
        scene.group.signal(VICTIM, signal.SIGKILL)
        scene.restart({"OMNI_FAULT": f"{label}:{n}"})
        scene.expect_death(label)
        before = scene.held()
        scene.restart()
        scene.end(process, label)
        print(f"   killed at {label}: {len(before)} jobs were out", flush=True)


def cancel(scene, process, what):
    """Ctrl-C at the client: all its requests end as cancelled, at once although their jobs are out."""
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, done, err = scene.group.run_wait(process, 10)
    assert code == 130 and len(done) == N_BE, f"{what}: exit {code}, {len(done)} results\n{err}"
    reasons = {one["finish_reason"] for one in done}
    assert "cancelled" in reasons and reasons <= {"cancelled", "length"}, f"{what}: {reasons}"
    return time.monotonic() - started


def replace(scene, env):
    """Another worker in the victim's place, once the engine has seen the old one go."""
    scene.group.signal(VICTIM, signal.SIGTERM)
    wait_until(lambda: scene.group.status()["engines"][0]["workers"][0]["state"] != "ready", 10, "worker gone")
    scene.restart(env)
    scene.group.wait_ready()


def test_cancel(scene):
    """Cancelled while the worker stands in the middle of a job: what the job names is not reused before it wakes,
    though others want memory."""
    for label in STOP_STEPS:
        replace(scene, {"OMNI_FAULT": f"{label}:1500:stop"})
        process = scene.begin()
        wait_until(lambda: is_stopped(scene.group.running[VICTIM].pid), 20, f"{VICTIM} stops at {label}")
        before = wait_until(scene.held, 5, "jobs are out at the stopped worker")
        seconds = cancel(scene, process, label)
        again = scene.group.run_begin(BE)
        time.sleep(1)
        stats = scene.group.stats()
        assert stats["draining"] > 0 and stats["arena_blocks_free"] < stats["arena_blocks_total"], f"{label}: {stats}"
        scene.expect_held(before, label)
        scene.group.signal(VICTIM, signal.SIGCONT)
        scene.end(again, label)
        print(f"   cancelled at {label}: {len(before)} jobs were out, answered in {seconds:.2f} s", flush=True)


def is_stopped(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "T"


def test_stopped_for_ever(scene):
    """The engine kills a worker that stands still for worker.kill_ms; also one whose requests were cancelled."""
    process = scene.begin()
    before = scene.stop()
    scene.expect_death("the engine kills a worker that stands still")
    scene.expect_held(before, "worker killed by the engine")
    scene.restart()
    scene.end(process, "SIGSTOP for ever")
    process = scene.begin()
    scene.stop()
    cancel(scene, process, "SIGSTOP for ever")
    scene.expect_death("the engine kills a worker whose jobs are cancelled")
    scene.group.expect_all_free()
    scene.restart()
    scene.end(scene.group.run_begin(BE), "after the cancelled ones")
    print(f"   SIGSTOP for ever: {len(before)} jobs were out", flush=True)


def scene_of(group):
    group.start()
    return Scene(group)


def main():
    settings = {"engine.offload": "always", "worker.arena_mb": 8}
    with Group(2, settings=settings) as group:
        scene = scene_of(group)
        with LsLoad(group, LS, scene.ls) as chats:
            print("1. a worker killed, and one that stands still for 5 s", flush=True)
            test_kill(scene)
            test_stop(scene, chats)
            print("2. a worker killed at every step of a job's life", flush=True)
            test_steps(scene)
            print("3. requests cancelled while their jobs are out at a worker that stands still", flush=True)
            test_cancel(scene)
        print(f"   {chats.n_batches} LS batches beside", flush=True)
    with Group(2, settings=dict(settings, **{"worker.kill_ms": 1500})) as group:
        scene = scene_of(group)
        print("4. a worker that stands still for ever", flush=True)
        with LsLoad(group, LS, scene.ls):
            test_stopped_for_ever(scene)
    print("ok")


if __name__ == "__main__":
    watchdog(240)
    main()
