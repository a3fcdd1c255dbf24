"""Any folder of scans, and the streets of this project."""

from __future__ import annotations

from pathlib import Path

from sparseconv.datasets.base import PointDataset, Transform
from sparseconv.errors import SparseConvValueError
from sparseconv.io import Points, read_points

SUFFIXES = (
    *(".bin", ".npy", ".npz", ".ply", ".pcd", ".las", ".laz", ".e57"),
    *(".xyz", ".txt", ".csv", ".pts", ".asc", ".off"),
)
ALL = "all"


class Folder(PointDataset):
    """All scans in a folder and the folders in it, in the order of their paths.

    Where it has folders ``train``, ``val``, ``test`` these are its splits; ``"all"`` is everything.

    Example:
        >>> import sparseconv as sc
        >>> streets = sc.datasets.Folder("data", "test")
        >>> len(streets), streets[0].feature_names
        (4, ('intensity',))
    """

    def __init__(
        self,
        root: str | Path,
        split: str = ALL,
        transform: Transform | None = None,
        seed: int = 0,
        label: str | None = None,
    ) -> None:
        """Find the scans.

        Args:
            root, split, transform, seed: as of :class:`PointDataset`.
            label: name of the column of labels, as of :func:`sparseconv.io.read_points`.
        """
        self._label = label
        super().__init__(root, split, transform, seed)

    def _scans(self) -> list[Path]:
        folder = self.root if self.split == ALL else self.root / self.split
        if not folder.is_dir():
            found = sorted(path.name for path in self.root.iterdir() if path.is_dir())
            raise SparseConvValueError(
                f"split: must be all or one of the folders {', '.join(found) or 'there are none'}, "
                f"got {self.split!r}"
            )
        return sorted(path for path in folder.rglob("*") if _is_scan(path))

    def _read(self, index: int) -> Points:
        return read_points(self.scans[index], label=self._label)


class Streets(Folder):
    """The synthetic streets in this project's folder ``data``: splits ``train`` and ``test``."""

    classes = ("ground", "building", "vehicle", "pole", "vegetation", "person")

    def __init__(
        self,
        root: str | Path = "data",
        split: str = "train",
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        """Find the scans; the arguments are those of :class:`PointDataset`."""
        super().__init__(root, split, transform, seed)


def _is_scan(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = "".join(suffixes[-1:])
    suffix = suffixes[-2] if suffix == ".gz" and len(suffixes) > 1 else suffix
    return suffix in SUFFIXES and path.is_file() and not path.name.endswith("_lidarseg.bin")
