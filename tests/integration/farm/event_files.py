"""Reads TensorBoard's event files, apart from the code that writes them: framing, checksums, protobuf by hand."""

import struct


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    """The messages of a file; raises ValueError where one is not whole."""
    while data:
        if len(data) < 16:
            raise ValueError("torn")
        length, = struct.unpack("<Q", data[:8])
        message = data[12:12 + length]
        if struct.unpack("<I", data[8:12])[0] != masked(data[:8]):
            raise ValueError("checksum of a length")
        if struct.unpack("<I", data[12 + length:16 + length])[0] != masked(message):
            raise ValueError("checksum of a message")
        yield message
        data = data[16 + length:]


def fields(message):
    """(number, value) of each field of a protobuf message."""
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    at = 0
    while at < len(message):
        key = varint()
        if key & 7 == 0:
            value = varint()
        elif key & 7 == 2:
            size = varint()
            value, at = message[at:at + size], at + size
        else:
            size = 8 if key & 7 == 1 else 4
            value, at = struct.unpack("<d" if size == 8 else "<f", message[at:at + size])[0], at + size
        yield key >> 3, value


def events(folder):
    """[(time, step, {tag: value})] of all files, in the order of names; each begins with its version."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        head, *rest = records(path.read_bytes())
        if dict(fields(head))[3] != b"brain.Event:2":
            raise ValueError(f"{path}: version")
        for message in rest:
            event = dict(fields(message))
            scalars = {}
            for number, value in fields(event[5]):
                pair = dict(fields(value))
                scalars[pair[1].decode()] = pair[2]
            found.append((event[1], event[2], scalars))
    return found
