"""A client written after proto/README.md alone: msgpack over nanomsg, for tests that must misbehave.

    client = Client(group)                     # says hello, dials the session
    client.send({"t": "generate", "id": new_id(), ...})
    client.receive(5)                          # the next message but pongs; None: nothing came in 5 s
    client.send_bytes(b"...")                  # whatever one likes
"""

import ctypes
import ctypes.util
import os
import struct
import sys
import threading
import time

AF_SP, NN_PAIR, NN_REQ, NN_DONTWAIT, NN_SOL_SOCKET = 1, 16, 48, 1, 0
NN_RCVBUF, NN_SNDTIMEO, NN_RCVTIMEO, NN_RCVMAXSIZE = 3, 4, 5, 16
PING_S, SEND_S = 0.5, 5


def nanomsg():
    name = ctypes.util.find_library("nanomsg")
    if name is None:
        print("skipped: no libnanomsg")
        sys.exit(77)
    return ctypes.CDLL(name, use_errno=True)


NN = nanomsg()


def new_id():
    return os.urandom(16)


def pack(value):
    """msgpack of what a test sends: maps, lists, text, bytes, numbers, booleans."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return struct.pack(">BQ", 0xCF, value) if value >= 0 else struct.pack(">Bq", 0xD3, value)
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, bytes):
        return struct.pack(">BH", 0xC5, len(value)) + value
    if isinstance(value, str):
        return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(pack(one) for one in value)
    if isinstance(value, dict):
        return struct.pack(">BI", 0xDF, len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    return b"\xc0"


class Unpacker:
    SCALARS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
               0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I",
               0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def items(self, tag, n):
        if tag in (0xC4, 0xC5, 0xC6):
            return self.take(n)
        if tag in (0xD9, 0xDA, 0xDB):
            return self.take(n).decode()
        if tag in (0xDC, 0xDD):
            return [self.value() for _ in range(n)]
        return {self.value(): self.value() for _ in range(n)}

    def value(self):
        tag = self.number(">B")
        if tag < 0x80 or tag >= 0xE0:
            return tag if tag < 0x80 else tag - 256
        if tag < 0xC0:
            kind, n = (0xDF, tag & 15) if tag < 0x90 else (0xDD, tag & 15) if tag < 0xA0 else (0xDB, tag & 31)
            return self.items(kind, n)
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if tag in self.SCALARS:
            return self.number(self.SCALARS[tag])
        return self.items(tag, self.number(self.LENGTHS[tag]))


class Socket:
    def __init__(self, protocol, url, receive_buffer=None):
        self.fd = NN.nn_socket(AF_SP, protocol)
        self.set(NN_RCVMAXSIZE, 16 << 20)
        self.set(NN_SNDTIMEO, SEND_S * 1000)
        if receive_buffer is not None:
            self.set(NN_RCVBUF, receive_buffer)
        if NN.nn_connect(self.fd, url.encode()) < 0:
            raise OSError(NN.nn_errno(), f"cannot dial {url}")

    def set(self, option, value):
        number = ctypes.c_int(value)
        NN.nn_setsockopt(self.fd, NN_SOL_SOCKET, option, ctypes.byref(number), ctypes.c_size_t(4))

    def send(self, data, flags=0):
        return NN.nn_send(self.fd, data, ctypes.c_size_t(len(data)), flags)

    def receive(self, seconds):
        self.set(NN_RCVTIMEO, max(1, int(seconds * 1000)))
        buffer = ctypes.c_void_p()
        n = NN.nn_recv(self.fd, ctypes.byref(buffer), ctypes.c_size_t(-1).value, 0)
        if n < 0:
            return None
        data = ctypes.string_at(buffer, n)
        NN.nn_freemsg(buffer)
        return data

    def close(self):
        NN.nn_close(self.fd)


def hello(group, version=1, seconds=5, message=None):
    """The router's answer to hello (or to another message at its door)."""
    door = Socket(NN_REQ, f"ipc://{group.run_dir}/router.sock")
    door.send(pack({"t": "hello", "version": version, "client": "test"}) if message is None else message)
    answer = door.receive(seconds)
    door.close()
    return None if answer is None else Unpacker(answer).value()


class Client:
    def __init__(self, group, receive_buffer=None):
        self.welcome = hello(group)
        assert self.welcome and self.welcome["t"] == "welcome", self.welcome
        self.socket = Socket(NN_PAIR, self.welcome["url"], receive_buffer)
        self.closing = threading.Event()
        self.pinger = threading.Thread(target=self.ping, daemon=True)
        self.pinger.start()

    def ping(self):
        while not self.closing.wait(PING_S):
            self.socket.send(pack({"t": "ping", "epoch": 0}), NN_DONTWAIT)

    def send(self, message):
        return self.send_bytes(pack(message))

    def send_bytes(self, data):
        """Waits while the session is still being dialled."""
        assert self.socket.send(data) == len(data), "the router does not take the message"

    def receive(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            data = self.socket.receive(left)
            message = None if data is None else Unpacker(data).value()
            if message is not None and message["t"] != "pong":
                return message
        return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.pinger.join()
        self.socket.close()
