"""Values in messages: whatever a file or a command line holds is told in a few characters."""

from __future__ import annotations

import re
from collections.abc import Mapping

LONGEST = 40  # characters of a value
LONGEST_REASON = 160  # characters of another's error
SHOWN = 4  # entries of a list
OTHERS = re.compile(r"|[-+.\deE]+|null|true|false|\[.*|\{.*")  # texts that read as other values
WORDS = {None: "null", True: "true", False: "false"}


def brief(value: object) -> str:
    """A value as it is written in yaml, cut off, and looked into no deeper than one list."""
    if isinstance(value, (list, tuple)):
        entries = [_entry(entry) for entry in value[:SHOWN]]
        text = f"[{', '.join([*entries, '...'] if len(value) > SHOWN else entries)}]"
    else:
        text = _entry(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def reason(error: BaseException) -> str:
    """What code of others says of a failure, in one line."""
    text = " ".join(str(error).split())
    start = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
    return f"{type(error).__name__}: {start}" if start else type(error).__name__


def _entry(value: object) -> str:
    if value is None or isinstance(value, bool):
        return WORDS[value]
    if isinstance(value, str):
        # Cut before it is escaped, which makes a text longer.
        start = value[: LONGEST + 1]
        plain = start.isprintable() and start.strip() == start and not OTHERS.fullmatch(start)
        return start if plain else repr(start)
    if isinstance(value, int):
        # Python refuses to write numbers of thousands of digits.
        return str(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[...]" if value else "[]"
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    return f"a {type(value).__name__}"
