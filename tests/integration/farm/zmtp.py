"""The little of ZMTP 3.0 that a stranger at the broker's door needs (rfc.zeromq.org/spec/23)."""

import socket
import struct


def greeting(mechanism):
    return b"\xff" + b"\0" * 7 + b"\x01\x7f" + b"\x03\x00" + mechanism.ljust(20, b"\0") + b"\0" * 32


def command(name, body=b""):
    text = bytes([len(name)]) + name + body
    return bytes([0x04, len(text)]) + text


def ready(socket_type=b"DEALER"):
    def field(name, value):
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return command(b"READY", field(b"Socket-Type", socket_type) + field(b"Identity", b""))


def message(*parts):
    out = b""
    for i, part in enumerate(parts):
        more = 1 if i + 1 < len(parts) else 0
        out += bytes([0x02 | more]) + struct.pack(">Q", len(part)) + part
    return out


def connect(endpoint, timeout=5):
    """A stream to tcp://host:port or ipc://path."""
    if endpoint.startswith("ipc://"):
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        stream.connect(endpoint[len("ipc://"):])
        return stream
    host, port = endpoint[len("tcp://"):].rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout)


def join(endpoint):
    """A stream that has gone through the handshake of the mechanism NULL."""
    stream = connect(endpoint)
    stream.sendall(greeting(b"NULL") + ready())
    heard = b""
    while b"READY" not in heard:
        more = stream.recv(4096)
        if not more:
            raise ConnectionError(f"hung up after {heard!r}")
        heard += more
    return stream


def receive_some(stream):
    """Whatever comes; b"" when the other side closed the connection."""
    try:
        return stream.recv(4096)
    except (ConnectionError, socket.timeout):
        return b""
