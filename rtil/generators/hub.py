"""Generators on the Hugging Face Hub, through huggingface_hub and its cache (rtil[hub]).

hf://user/repo[/file][@revision] is a file of a repository, `generator.safetensors` where none is
named, at a branch, tag or commit, `main` where none is named. What a run records has the commit:
a branch moves on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from rtil.process.brief import brief, reason

SCHEME = "hf://"
FILE, REVISION = "generator.safetensors", "main"
PATIENCE = 3.0  # seconds until a hub that does not answer is out of reach
ADDRESS = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(/(?P<file>[^@\s]+))?(@(?P<revision>[^@\s]+))?"
)


class Address(NamedTuple):
    """A file of a repository at a revision."""

    repo: str
    file: str
    revision: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}/{self.file}@{self.revision}"


def parse(text: str) -> Address:
    """The address that a text is. Raises ValueError where it is none."""
    match = ADDRESS.fullmatch(text)
    # A part of dots alone leads out of a folder.
    if match is None or any(set(part) == {"."} for part in re.split("[/@]", text)):
        raise ValueError(
            f"{brief(text)} is no address of a generator; it must be "
            "hf://user/repo, hf://user/repo/file or hf://user/repo/file@revision."
        )
    return Address(match["repo"], match["file"] or FILE, match["revision"] or REVISION)


def fetch(text: str) -> tuple[Path, str]:
    """A file of a hub in the library's cache, and its address with the commit.

    While the hub is out of reach the cache is asked alone.

    Raises:
        FileNotFoundError: it is not there, or not in the cache while the hub is out of reach.
        ValueError: no address, or huggingface_hub is not installed.
    """
    address = parse(text)
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    except ImportError as error:
        raise ValueError(
            f'{text}: huggingface_hub cannot be imported. pip install "rtil[hub]"'
        ) from error
    unreached = None
    try:
        unreached = _unreached(address)
        path = Path(
            hf_hub_download(
                address.repo,
                address.file,
                revision=address.revision,
                local_files_only=unreached is not None,
            )
        )
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        if unreached is None:
            raise FileNotFoundError(
                f"{address}: no such file on the hub, or none that you may read "
                f"({reason(error)}). Check its name, or fetch the file yourself and name its path."
            ) from error
        raise FileNotFoundError(
            f"{address}: the hub is out of reach ({unreached}), and the cache "
            f"{constants.HF_HUB_CACHE} does not hold it. Run it once where there is a network and "
            "HF_HUB_OFFLINE is not set, name the cache by HF_HUB_CACHE if it is elsewhere, or "
            "fetch the file yourself and name its path."
        ) from error
    return path, str(address._replace(revision=_commit(path, address)))


def _unreached(address: Address) -> str | None:
    """Why the hub does not answer, or None where it does.

    Asked once: what is not in the cache the library asks for six times, for half a minute.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        url = hf_hub_url(address.repo, address.file, revision=address.revision)
        get_hf_file_metadata(url, timeout=PATIENCE)
    except (HfHubHTTPError, HFValidationError):
        return None  # it has answered, or is not asked: what is wrong is said where it is fetched
    except Exception as error:  # of another HTTP library from version to version
        return reason(error)
    return None


def _commit(path: Path, address: Address) -> str:
    """The commit whose folder of the cache a file lies in: <snapshots>/<commit>/<file>."""
    return path.parts[-len(Path(address.file).parts) - 1]


def cached(text: str) -> Path | None:
    """The file of an address in the cache, or None; nothing is fetched."""
    try:
        from huggingface_hub import try_to_load_from_cache

        address = parse(text)
        path = try_to_load_from_cache(address.repo, address.file, revision=address.revision)
    except (ImportError, ValueError):
        return None
    return Path(path) if isinstance(path, str) else None
