"""Talks to tokenizer_tool, our side of the comparisons."""

import array
import struct
import subprocess


def ask(command, messages, more=0):
    """The replies to byte strings, in order, after `more` that come unasked."""
    data = b"".join(struct.pack("<I", len(m)) + m for m in messages)
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command} ended with {done.returncode}")
    replies, at = [], 0
    while at < len(done.stdout):
        size = struct.unpack_from("<I", done.stdout, at)[0]
        replies.append(done.stdout[at + 4:at + 4 + size])
        at += 4 + size
    if len(replies) != len(messages) + more:
        raise SystemExit(f"{len(replies)} replies to {len(messages)} requests: {command}")
    return replies


def ids_to_bytes(ids):
    return array.array("i", ids).tobytes()


def bytes_to_ids(data):
    ids = array.array("i")
    ids.frombytes(data)
    return ids.tolist()
