"""The control groups of this process, whose limits count beside the machine's: Linux containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def limits(controller: str, names: tuple[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield what limits this process: its own group's and those of all groups above.

    Args:
        controller: ``"memory"`` or ``"cpu"``.
        names: of the file of a limit, in version 2 and in version 1.

    Yields:
        The folder of a group, and what the file there says.

    Source: the Linux kernel's documentation, cgroup-v2 and cgroup-v1.
    """
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _above(MOUNT, path, names[0])
        elif controller in controllers.split(","):
            yield from _above(MOUNT / controller, path, names[1])


def _above(mount: Path, path: str, file: str) -> Iterator[tuple[Path, str]]:
    """Yield the limits from a group up to the mount, which a container sees as its own group."""
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(mount):
            return
        try:
            yield folder, (folder / file).read_text(encoding="ascii").strip()
        except OSError:
            continue
