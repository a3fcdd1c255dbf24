"""The list of finished tiles, each with the hash of its results, so that a run can go on."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from sparseconv.errors import SparseConvValueError
from sparseconv.tiles.run import Done, digest_of, result_file

_NAME, _KEY = "manifest.jsonl", "key.json"


def fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's layers, parameters and buffers."""
    digest = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            rows = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(rows.numpy().tobytes())
    return digest.hexdigest()


def has_begun(folder: Path, key: dict[str, str]) -> bool:
    """Return whether the folder was begun for this very run before.

    Raises:
        SparseConvValueError: it was begun for another run.
    """
    path = folder / _KEY
    if not path.exists():
        return False
    before = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name in key if before.get(name) != key[name]]
    if differing:
        raise SparseConvValueError(
            f"folder: holds the tiles of another run, which differs in {', '.join(differing)}; "
            f"take another folder, or empty this one"
        )
    return True


def begin(folder: Path, key: dict[str, str]) -> None:
    """Begin a folder: from here on it holds a whole partition of this run."""
    path = folder / f"{_KEY}.part"
    path.write_text(json.dumps(key, indent=1), encoding="utf-8")
    path.replace(folder / _KEY)


def append(folder: Path, done: Done) -> None:
    """Note a finished tile; on disk when this returns."""
    with (folder / _NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(done._asdict()) + "\n")
        file.flush()
        os.fsync(file.fileno())


def finished(folder: Path) -> dict[int, Done]:
    """Return the tiles whose results lie in the folder, unharmed; a torn last line is none."""
    found: dict[int, Done] = {}
    manifest = folder / _NAME
    if not manifest.exists():
        return found
    for line in manifest.read_text(encoding="utf-8").splitlines():
        try:
            done = Done(**json.loads(line))
        except (ValueError, TypeError):
            continue
        path = result_file(folder, done.number)
        if path.exists() and digest_of(path) == done.digest:
            found[done.number] = done
    return found
