"""Digests of contents: what a file holds is known again, however it is packed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def digest(content: object) -> str:
    """SHA-256 of nested mappings, lists and tuples of tensors, numbers and texts.

    Equal contents have equal digests: mappings by their keys' order as texts, tensors by type,
    shape and elements. Differs from the digest of a file, which depends on how it was packed.

    Raises:
        ValueError: something else is among them, or a tensor that shows more elements than it
            stores, as no saved weights do.
    """
    hasher = hashlib.sha256()
    _update(hasher, content)
    return hasher.hexdigest()


def _update(hasher: hashlib._Hash, content: object) -> None:
    if isinstance(content, torch.Tensor):
        x = content.detach().cpu()
        if x.numel() * x.element_size() > x.untyped_storage().nbytes():
            raise ValueError(f"a tensor {tuple(x.shape)} shows more elements than it stores.")
        hasher.update(f"tensor {x.dtype} {tuple(x.shape)};".encode())
        hasher.update(x.contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(content, Mapping):
        hasher.update(f"mapping {len(content)};".encode())
        for key in sorted(content, key=repr):
            hasher.update(f"{key!r}:".encode())
            _update(hasher, content[key])
    elif isinstance(content, (list, tuple)):
        hasher.update(
            f"{'list' if isinstance(content, list) else 'tuple'} {len(content)};".encode()
        )
        for entry in content:
            _update(hasher, entry)
    elif content is None or isinstance(content, (bool, int, float, str)):
        hasher.update(f"{type(content).__name__} {content!r};".encode())
    else:
        raise ValueError(f"a {type(content).__name__} has no digest.")
