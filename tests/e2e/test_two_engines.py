#!/usr/bin/env python3
"""Two engines share two workers: both engines serve, both workers work for each; whichever dies concerns only what
it held, and the tokens are those of an undisturbed run."""

import signal

import omni_shm
from omni_e2e import Group, wait_until, watchdog

N_ENGINES = N_WORKERS = 2
N_BE = 16
LS = [{"tokens": [(7 * i + j) % 251 for j in range(4 + 3 * i)], "max_tokens": 60, "ignore_eos": True} for i in range(12)]
BE = [{"tokens": [(11 * i + j) % 251 for j in range(3 + 5 * i)], "max_tokens": 700, "ignore_eos": True}
      for i in range(N_BE)]


def tokens(done):
    return [one["tokens"] for one in done]


def jobs_taken(group):
    """Jobs that each worker did for each engine."""
    return {(engine, worker): omni_shm.jobs_done(group.segments, worker, engine)
            for engine in range(N_ENGINES) for worker in range(N_WORKERS)}


def begin(group):
    """The generations, under way at both engines and both workers."""
    before = jobs_taken(group)
    process = group.run_begin(BE)
    wait_until(lambda: all(now > before[key] + 200 for key, now in jobs_taken(group).items()), 20,
               "each worker does jobs of each engine")
    assert process.poll() is None, "the generations were over before the fault: give them more tokens"
    return process


def expect_same(group, done, expected, what):
    wrong = [i for i in range(N_BE) if done[i] != expected[i]]
    assert not wrong, f"{what}: other tokens in requests {wrong}"
    group.expect_all_free()


def test_both_classes(group, expected):
    """LS goes to both engines, with the tokens of one alone, beside BE on the workers of both."""
    before = [group.stats("finished", engine=i) for i in range(N_ENGINES)]
    assert tokens(group.run(LS, "ls")) == expected["ls"], "LS over two engines: other tokens"
    served = [group.stats("finished", engine=i) - before[i] for i in range(N_ENGINES)]
    assert min(served) > 0, f"LS at each engine: {served}"
    process = begin(group)
    done = group.run(LS, "ls")
    assert tokens(done) == expected["ls"], "LS beside BE over two engines: other tokens"
    expect_same(group, tokens(group.run_end(process)), expected["be"], "BE beside LS")
    print(f"   LS at each engine: {served}", flush=True)


def test_engine_killed(group, expected):
    """What it held ends with a retryable error, and gives the same tokens when asked for again; what the other
    engine holds goes on."""
    process = begin(group)
    finished = group.stats("finished", engine=0)
    group.signal("engine-1", signal.SIGKILL)
    code, done, err = group.run_wait(process)
    assert code == 1 and len(done) == N_BE, f"exit {code}, {len(done)} results\n{err}"
    lost = [i for i in range(N_BE) if done[i]["finish_reason"] == "error"]
    assert 0 < len(lost) < N_BE, f"{len(lost)} of {N_BE} requests were at the engine that was killed"
    errors = {(done[i]["error"]["code"], done[i]["error"]["retryable"]) for i in lost}
    assert errors == {("engine_lost", True)}, errors
    assert group.stats("finished", engine=0) == finished + N_BE - len(lost)
    again = dict(zip(lost, group.run([BE[i] for i in lost])))  # the other engine has room for them
    group.start_program("engine-1")
    group.wait_ready()
    expect_same(group, tokens(again.get(i, done[i]) for i in range(N_BE)), expected, "engine killed")
    expect_same(group, tokens(group.run_end(begin(group))), expected, "both engines again")
    print(f"   engine-1 killed: {len(lost)} requests were lost, {N_BE - len(lost)} went on", flush=True)


def test_worker_killed(group, expected):
    """Its jobs wait at both engines for the next worker; nothing is lost or computed again."""
    process = begin(group)
    group.signal("attnd-1", signal.SIGKILL)
    out = [wait_until(lambda engine=engine: omni_shm.held(group.segments, 1, engine), 5, "jobs are out at the dead one")
           for engine in range(N_ENGINES)]
    rerun = [omni_shm.jobs_rerun(group.segments, 1, engine) for engine in range(N_ENGINES)]
    group.start_program("attnd-1")
    expect_same(group, tokens(group.run_end(process)), expected, "worker killed")
    for engine in range(N_ENGINES):
        stats = group.stats(engine=engine)
        assert stats["recomputed_tokens"] == stats["jobs_failed"] == stats["failed"] == 0, stats
        assert omni_shm.jobs_rerun(group.segments, 1, engine) > rerun[engine], f"engine {engine}: no job ran again"
    print(f"   attnd-1 killed: {len(out[0])} and {len(out[1])} jobs were out", flush=True)


def main():
    with Group(N_WORKERS, settings={"engine.offload": "always"}, n_engines=N_ENGINES) as group:
        group.start()
        expected = tokens(group.run(BE, options=["--concurrency", "1"]))
        expect_same(group, tokens(group.run_end(begin(group))), expected, "two engines")
        served = [group.stats("finished", engine=i) for i in range(N_ENGINES)]
        assert min(served) > 0, served
        test_both_classes(group, {"be": expected, "ls": tokens(group.run(LS, options=["--concurrency", "1"]))})
        test_worker_killed(group, expected)
        test_engine_killed(group, expected)
    print("ok")


if __name__ == "__main__":
    watchdog(150)
    main()
