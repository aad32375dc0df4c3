"""A client after proto/README.md alone, on packages from PyPI: pynng (nng's sockets speak nanomsg's protocols) and msgpack.

    with OmniClient("/run/omni/chat") as omni:
        for text in omni.stream(messages=[{"role": "user", "content": "hello"}]):
            print(text, end="")
"""

import os
import threading
import time

import msgpack
import pynng

PING_S, SILENCE_S = 0.5, 2.0


class OmniError(Exception):
    def __init__(self, message):
        super().__init__(f"{message['code']}: {message['message']}")
        self.code, self.field, self.retryable = message["code"], message.get("field"), message["retryable"]


class OmniClient:
    """One session; one thread receives at a time."""

    def __init__(self, run_folder, timeout_s=5):
        self.door, self.timeout_s = f"ipc://{run_folder}/router.sock", timeout_s
        self.connect()

    def connect(self):
        """hello, then the session that the router names."""
        with pynng.Req0(recv_timeout=int(self.timeout_s * 1000), send_timeout=int(self.timeout_s * 1000)) as door:
            door.dial(self.door, block=True)
            door.send(msgpack.packb({"t": "hello", "version": 1, "client": "pynng"}))
            self.welcome = msgpack.unpackb(door.recv())
        if self.welcome["t"] == "error":
            raise OmniError(self.welcome)
        self.socket = pynng.Pair0(recv_timeout=100, send_timeout=int(self.timeout_s * 1000),
                                  recv_max_size=16 << 20)
        self.socket.dial(self.welcome["url"], block=True)
        self.heard, self.closing = time.monotonic(), threading.Event()
        self.pinger = threading.Thread(target=self.ping, daemon=True)
        self.pinger.start()

    def ping(self):
        while not self.closing.wait(PING_S):
            try:
                self.socket.send(msgpack.packb({"t": "ping", "epoch": 0}), block=False)
            except pynng.NNGException:
                pass  # receive() notices the silence

    def close(self):
        self.closing.set()
        self.pinger.join()
        self.socket.close()

    def send(self, kind, **fields):
        self.socket.send(msgpack.packb({"t": kind, **fields}))

    def receive(self):
        """The next message but pongs; ConnectionError after SILENCE_S without any."""
        while True:
            try:
                message = msgpack.unpackb(self.socket.recv())
                self.heard = time.monotonic()
            except pynng.Timeout:
                message = {"t": "pong"}
            if time.monotonic() - self.heard > SILENCE_S:
                raise ConnectionError("router lost")
            if message["t"] == "error" and "id" not in message:
                raise ConnectionError(str(OmniError(message)))
            if message["t"] != "pong":
                return message

    def start(self, cls="ls", **request):
        request_id = os.urandom(16)
        self.send("generate", id=request_id, **{"class": cls}, **request)
        return request_id

    def cancel(self, request_id):
        self.send("cancel", id=request_id)

    def collect(self, *ids):
        """id -> (text, tokens, done message) once each has ended; an OmniError in its place."""
        out = {one: ["", [], None] for one in ids}
        while any(one[2] is None for one in out.values()):
            message = self.receive()
            for item in message.get("items", []):
                out[item["id"]][0] += item["text"]
                out[item["id"]][1] += item["ids"]
            if message["t"] in ("done", "error"):
                out[message["id"]][2] = message if message["t"] == "done" else OmniError(message)
        return out

    def stream(self, **request):
        """Pieces of one request's text as they come."""
        request_id = self.start(**request)
        while True:
            message = self.receive()
            yield from (item["text"] for item in message.get("items", []) if item["id"] == request_id and item["text"])
            if message["t"] in ("done", "error") and message["id"] == request_id:
                if message["t"] == "error":
                    raise OmniError(message)
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
