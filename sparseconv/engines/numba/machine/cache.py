"""Compiled kernels on disk, a folder for each version of the sources: several lie side by side.

Numba names a folder after a source file's own path and keeps one version in it, so that two images
with one mounted cache, or a process that began before an upgrade, would undo each other's work. It
also leaves out a folder that it cannot write to, though it could read what an image holds.

Benchmark: start first forward, cache
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock
from numba import config
from numba.core import caching

ENGINE = Path(__file__).parents[1]
KEPT = 4  # versions; the one that was used least recently goes
PREFIX = "sparseconv-"


@functools.cache
def folder() -> Path | None:
    """Return where kernels of these sources are kept, or read; None where neither can be.

    In ``NUMBA_CACHE_DIR``, beside the package, or among the user's caches.
    """
    for root in _roots():
        path = root / f"{PREFIX}{_sources()[:16]}"
        if writable(path):
            _drop_oldest(root)
            return path
        if any(path.glob("*.nbi")):
            return path
    cannot_keep("no folder can be written")
    return None


@functools.cache
def cannot_keep(reason: str) -> None:
    """Say once, in one line, that each process compiles the kernels anew."""
    logging.getLogger("sparseconv").warning(
        "compiled kernels cannot be kept, %s: each process compiles them anew; set NUMBA_CACHE_DIR "
        "to a folder that can be written, or that `sparseconv warmup --to` filled",
        reason,
    )


@functools.cache
def writable(path: Path) -> bool:
    """Return whether files can be made in a folder, which is made too, and note that it is used."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        os.utime(path)
    except OSError:
        return False
    return True


def _roots() -> Iterator[Path]:
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    yield ENGINE / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    with contextlib.suppress(RuntimeError):  # nobody's home is known
        yield Path(home) if home else Path.home() / ".cache"


@functools.cache
def _sources() -> str:
    """Return a digest of all that compiled code depends on, beside the processor.

    Numba looks at the file of a kernel alone, but the helpers that it calls are compiled into it.
    """
    digest = hashlib.sha256(f"{version('numba')} {version('llvmlite')}".encode())
    for path in sorted(ENGINE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _drop_oldest(root: Path) -> None:
    """Delete the versions that were used least recently."""
    with contextlib.suppress(OSError), FileLock(root / "sparseconv.lock"):
        versions = sorted(root.glob(f"{PREFIX}*"), key=lambda path: path.stat().st_mtime)
        for path in versions[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)


class _Place(caching._CacheLocator):  # type: ignore[misc]
    """Says where the variants of a kernel are, and what they were compiled from."""

    def __init__(self, function: Any, file: str) -> None:
        self._py_file = file  # Numba's warnings name it
        self._name = f"{function.__module__} {function.__code__.co_firstlineno}"

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Place | None:
        return None if folder() is None else cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(folder())

    def get_source_stamp(self) -> str:
        return _sources()

    def get_disambiguator(self) -> str:
        return hashlib.sha256(self._name.encode()).hexdigest()[:12]


class _Results(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Place]  # noqa: RUF012  # Numba's own

    def __init__(self, function: Any) -> None:
        chosen, config.CACHE_LOCATOR_CLASSES = getattr(config, "CACHE_LOCATOR_CLASSES", ""), ""
        try:
            super().__init__(function)
        finally:
            config.CACHE_LOCATOR_CLASSES = chosen


class KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """What a kernel was compiled to, on disk.

    Raises:
        RuntimeError: there is no folder to keep it in.
    """

    _impl_class = _Results

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a variant, where that can be done."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            cannot_keep(f"{folder()} cannot be written ({error.strerror})")
