"""One error for whatever a parser raises on a damaged file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io.source import Source


@contextmanager
def naming_damage(source: Source) -> Iterator[None]:
    """Turn any parser's error inside the block into one that names the file.

    Args:
        source: The file being read; open it before the block, so that a missing file stays an
            ordinary FileNotFoundError.

    Raises:
        SparseConvValueError: The block raised; the original error is its cause.
    """
    try:
        yield
    except SparseConvError:
        raise
    # Damaged bytes make parsers raise almost anything (EOFError, BadZipFile, SyntaxError, ...), and
    # the panic of a parser written in Rust is no Exception.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SparseConvValueError(
            f"{source.name!r} cannot be read as {source.suffix}: {reason}"
        ) from error
