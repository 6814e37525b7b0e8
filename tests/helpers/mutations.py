"""Seeded damage: to bytes, to nested contents, to texts, and files that are none."""

import copy
import json
import os
import random
import struct

import torch

LONG = "n" * 300
TEXTS = ("", "x", "\x00", "a\x1b[31m\nb", LONG, "../../up", "{}", "nan", "é ü 日本", "1e400")
NUMBERS = (-1, 0, 2**31, 2**63, 10**30, -1.5, float("inf"), float("nan"), 1e308, True, None)


def nested(depth=200):
    """A list in a list, and so on."""
    content = []
    for _ in range(depth):
        content = [content]
    return content


def junk(rng: random.Random) -> object:
    """Something that belongs nowhere."""
    kinds = (
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(TEXTS),
        nested,
        dict,
        list,
        lambda: {"a": nested(50), LONG: 1},
        lambda: tuple(range(1000)),
    )
    return rng.choice(kinds)()


def odd_tensor(rng: random.Random, like: torch.Tensor) -> torch.Tensor:
    """A tensor that is not one of those that were there."""
    kinds = (
        lambda: like.new_zeros(1).expand(1 << 30),  # 4 GB shown, 4 bytes stored
        lambda: torch.full_like(like, float("nan")) if like.is_floating_point() else like[:0],
        lambda: like.to(torch.int64) if like.is_floating_point() else like.double(),
        lambda: like.reshape(-1),
        lambda: like.reshape(-1)[:0],
        lambda: torch.zeros((1,) * 30),
        lambda: torch.cat([like.reshape(-1)] * 2),
    )
    return rng.choice(kinds)()


def of_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flipped bits, a cut, zeros, a block twice, a block of noise, or nothing."""
    content = bytearray(data)
    at = rng.randrange(len(content) or 1)
    size = rng.choice((1, 4, 40, 400))
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.randint(1, 20)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        content[at : at + size] = bytes(len(content[at : at + size]))
    elif kind == 3:
        content[at:at] = content[at : at + size]
    elif kind == 4:
        content[at : at + size] = rng.randbytes(size)
    else:
        return rng.choice((b"", b"\x00" * 1000, rng.randbytes(500), b"PK\x03\x04", b"[" * 50_000))
    return bytes(content)


def of_content(rng: random.Random, content: object) -> object:
    """The same mappings and lists with one to three of their entries changed, gone or renamed."""
    changed = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        holders = list(_holders(changed))
        if not holders:
            return junk(rng)
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        kind = rng.randrange(4)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice((LONG, "\x00", "x", "__class__", 7))] = holder.pop(key)
        elif isinstance(holder[key], torch.Tensor):
            holder[key] = odd_tensor(rng, holder[key])
        else:
            holder[key] = junk(rng)
    return junk(rng) if rng.random() < 0.03 else changed


def _holders(content: object):
    """Every mapping and list within, that has something."""
    if isinstance(content, (dict, list)) and content:
        yield content
        for value in content.values() if isinstance(content, dict) else content:
            yield from _holders(value)


def of_text(rng: random.Random, text: str) -> bytes:
    """A text with lines changed, twice, cut or gone, or one that is none."""
    lines = text.splitlines() or [""]
    at = rng.randrange(len(lines))
    kind = rng.randrange(7)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    elif kind == 2:
        head = lines[at].partition(":")[0]
        lines[at] = f"{head}: {rng.choice((*TEXTS, *map(str, NUMBERS), '[[]]', '{a: {b: 1}}'))}"
    elif kind == 3:
        lines[at:at] = [rng.choice(("- x", "[", "{", "a: [1", "\t", "12", "[]", "null", "&a *a"))]
    elif kind == 4:
        return of_bytes(rng, text.encode())
    elif kind == 5:
        bare = ("", "[]", "12", "null", "{", "text", "a: &a [*a]", "[" * 5_000, "{}", '"', "\x00")
        return rng.choice(bare).encode()
    else:
        lines[at] = rng.choice(("\ufeff", "\udcff", "", " ")) + lines[at]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def header_of(data: bytes) -> tuple[dict, bytes]:
    """The header of a file of safetensors, and what lies behind it."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: object, tensors: bytes) -> bytes:
    """A file of safetensors, whatever its header is."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def no_file(rng: random.Random, path) -> None:
    """What stands at a path and is no file with an end."""
    kind = rng.randrange(5)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.symlink_to(path)
    elif kind == 3:
        path.mkdir()
    else:
        path.symlink_to(path.with_name("gone"))
