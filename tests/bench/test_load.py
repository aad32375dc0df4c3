#!/usr/bin/env python3
"""The load generator against a real group of a tiny model and against an HTTP server of this test: every
request is in exactly one book, refusals are counted, and latency counts from the scheduled arrival."""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../e2e"), HERE]
import load  # noqa: E402
from omni_e2e import Group, program, watchdog  # noqa: E402

SHORT = {"seconds": 2, "warm_up": 0.3, "drain": 20, "vocab": 200}
SERVER_TOKEN_S, SERVER_SLOTS = 0.004, 4


def check_books(report):
    for key, book in report["books"].items():
        assert book["offered"] == sum(n for what, n in book.items() if what != "offered"), (key, book)
        assert book["unfinished"] == 0, (key, book)
    assert not load.problems_of("run", [dict(report, lateness_ms={"p99": 0})])
    done = [one for one in report["requests"] if one["outcome"] == "done"]
    assert all(one["output"] == one["asked"] for one in done)
    assert len(report["ls_gaps_ms"]) <= sum(one["output"] - 1 for one in report["requests"] if one["output"])


def test_what_is_no_figure():
    book = {"offered": 2, "done": 1, "refused": 0, "failed": 0, "cancelled": 0, "unfinished": 1}
    report = {"books": {"ls": book}, "lateness_ms": {"p99": 1000}, "said": "nothing"}
    assert len(load.problems_of("run", [report])) == 1 and not load.problems_of("run", [report], quick=True)
    for wrong in (dict(book, done=0, failed=1), dict(book, done=0)):
        found = load.problems_of("run", [dict(report, books={"ls": wrong})], quick=True)
        assert len(found) == 1 and "late" not in found[0], found


def test_open_and_closed_loop_in_one_run(group):
    report = load.run(("--config", group.config), dict(SHORT, ls_rate=8, be=3, ls_prompt=24, ls_output=8,
                                                       be_prompt=40, be_output=12))
    check_books(report)
    books = report["books"]
    assert books["ls_measured"]["done"] == books["ls_measured"]["offered"] > 5
    assert books["be"]["done"] > 3 and report["window"]["be_decode_tokens"] > 0
    assert sum(report["per_second"]["be_decode_tokens"]) >= report["window"]["be_decode_tokens"] > 0
    assert report["lateness_ms"]["n"] == books["ls"]["offered"]


def test_a_plan_is_asked_as_written(group):
    asks = [(0.5 + 0.1 * i, "ls" if i % 3 else "be", 10 + i, 4 + i) for i in range(12)] + [(None, "be", 33, 5)]
    report = load.run(("--config", group.config), dict(SHORT, be=2), asks)
    check_books(report)
    assert [(one["class"], one["prompt"], one["asked"]) for one in report["requests"]] == \
        [(name, prompt, output) for at, name, prompt, output in asks if at is not None]
    assert all(abs(one["at_ms"] - 1000 * at) < 1 for one, (at, *_) in zip(report["requests"], asks))


def test_refusals_are_counted(group):
    asks = [(0.5, "ls", 40, 60)] * 40
    report = load.run(("--config", group.config), SHORT, asks)
    check_books(report)
    assert report["books"]["ls"]["refused"] > 0, report["books"]
    figures = load.summary([report], 60000, 60000)
    assert figures["attained"] == figures["ls_done"] / 40 < 1
    assert figures["attained_admitted"] == 1


def test_a_server_that_is_gone_is_told(group):
    done = subprocess.run([program("omni-bench-load"), "--config", group.config + ".none", "--ls-rate", "1"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "none" in done.stderr


class Completions(http.server.BaseHTTPRequestHandler):
    """Streams tokens as llama.cpp's server does, with a token that is told with the next one's event."""
    protocol_version = "HTTP/1.1"
    slots = threading.Semaphore(SERVER_SLOTS)

    def do_POST(self):
        ask = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert ask["stream"] and ask["ignore_eos"] and len(ask["prompt"]) > 0
        if len(ask["prompt"]) == 13:
            self.send_error(503, "busy")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with self.slots:
            for i in range(1, ask["n_predict"] + 1):
                time.sleep(SERVER_TOKEN_S)
                if i != 2:
                    self.event({"content": "x", "stop": False, "tokens_predicted": i})
            self.event({"content": "", "stop": True, "tokens_predicted": ask["n_predict"]})
        self.wfile.write(b"0\r\n\r\n")

    def event(self, value):
        text = f"data: {json.dumps(value)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

    def log_message(self, *arguments):
        pass


def with_server(test):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Completions)
    server.handle_error = lambda *arguments: None  # connections that the load cancels
    threading.Thread(target=server.serve_forever, daemon=True).start()
    test(server.server_port)
    server.shutdown()


def test_http(port):
    asks = [(0.4 + 0.1 * i, "ls", 20, 6) for i in range(12)] + [(0.9, "ls", 13, 6), (None, "be", 100, 10)]
    report = load.run(("--http", port), dict(SHORT, be=2), asks)
    check_books(report)
    assert report["books"]["ls_measured"]["done"] == 12 and report["books"]["ls_measured"]["refused"] == 1
    tpot = load.summary([report])["tpot_p50"]
    assert tpot > 1000 * SERVER_TOKEN_S, tpot
    assert len(report["ls_gaps_ms"]) == 12 * 4  # six tokens in five events
    assert report["window"]["be_decode_tokens"] > 20


def test_latency_counts_from_the_schedule(port):
    """40 requests at once at 4 slots: the last waits for nine before it, and that is its TTFT."""
    asks = [(0.5, "ls", 20, 10)] * 40
    report = load.run(("--http", port), SHORT, asks)
    check_books(report)
    ttft = sorted(one["ttft_ms"] for one in report["requests"])
    assert ttft[-1] > 9 * 10 * 1000 * SERVER_TOKEN_S, ttft[-1]


def test_http_failures_end_the_run():
    done = subprocess.run([program("omni-bench-load"), "--http", "1", "--be", "2", "--seconds", "5"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "broke off" in done.stderr


def main():
    watchdog(200)
    test_what_is_no_figure()
    with_server(lambda port: (test_http(port), test_latency_counts_from_the_schedule(port)))
    test_http_failures_end_the_run()
    with Group(n_workers=1, settings={"router.queue_max": "4,64", "engine.max_seqs": 8}) as group:
        group.start()
        test_open_and_closed_loop_in_one_run(group)
        test_a_plan_is_asked_as_written(group)
        test_refusals_are_counted(group)
        test_a_server_that_is_gone_is_told(group)
        group.expect_all_free()
    print("ok")


if __name__ == "__main__":
    main()
