"""Files of every format, changed at random, read in a process with little memory.

python tests/io/mutations.py --count 10000    # exits with 1 where a file ends a process, or an
                                              # exception is none of ours, nor an OSError
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np

FORMATS = ("bin", "npy", "npz", "ply", "pcd", "las", "laz", "xyz", "csv", "off", "obj", "gz")
MEMORY = 1 << 30  # bytes above what the process has when it starts
ROWS = 60
SLOW = 5.0  # seconds; such a file is reported
LARGE = (0, 1, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 500_000_000, 10**9, 2**62)


def points(rows: int = ROWS) -> object:
    """Return a small cloud with labels."""
    import sparseconv as sc  # noqa: PLC0415 - only the process that reads files pays for it

    rng = np.random.default_rng(0)
    xyz = np.round(rng.normal(0, 20, (rows, 3)), 2).astype(np.float32)
    features = rng.integers(0, 255, (rows, 1)).astype(np.float32)
    return sc.io.Points(xyz, features, ("intensity",), rng.integers(0, 20, rows))


def seeds(kind: str, folder: Path) -> list[bytes]:
    """Return valid files of a format, in all its forms that we write."""
    import sparseconv as sc  # noqa: PLC0415

    cloud = points()
    plain = sc.io.Points(cloud.xyz, cloud.features, ("intensity",))  # type: ignore[attr-defined]
    path = folder / f"seed.{kind}"
    found = []
    if kind in ("off", "obj"):
        rows = "".join(f"{'v ' * (kind == 'obj')}{x} {y} {z}\n" for x, y, z in plain.xyz)
        head = f"OFF\n{len(plain)} 0 0\n" if kind == "off" else "# vertices\n"
        return [(head + rows).encode()]
    if kind == "gz":
        sc.io.write_points(folder / "seed.ply", cloud)
        return [gzip.compress((folder / "seed.ply").read_bytes())]
    sc.io.write_points(path, plain if kind in ("npy", "bin") else cloud)
    found.append(path.read_bytes())
    names = "xyz"
    columns = [*plain.xyz.T, plain.features[:, 0]]
    if kind == "npy":
        table = np.zeros(60, [(n, "<f4") for n in (*names, "i")])
        found.append(_saved(np.save, table))
    if kind == "npz":
        found.append(_saved(np.savez, xyz=plain.xyz, pose=np.eye(4), label=np.arange(60)))
    text = "".join(" ".join(map(str, row)) + "\n" for row in zip(*columns, strict=True)).encode()
    if kind == "ply":
        head = "ply\nformat ascii 1.0\nelement vertex 60\n"
        head += "".join(f"property float {name}\n" for name in (*names, "intensity"))
        found.append(head.encode() + b"end_header\n" + text)
        head = "ply\nformat binary_little_endian 1.0\nelement face 2\n"
        head += "property list uchar int vertex_indices\nelement vertex 60\n"
        head += "".join(f"property float {name}\n" for name in names)
        faces = struct.pack("<B3iB4i", 3, 0, 1, 2, 4, 0, 1, 2, 3)
        found.append(head.encode() + b"end_header\n" + faces + plain.xyz.astype("<f4").tobytes())
    if kind == "pcd":
        head = b"FIELDS x y z i\nSIZE 4 4 4 4\nTYPE F F F F\nWIDTH 60\nHEIGHT 1\nPOINTS 60\nDATA "
        found.append(head + b"ascii\n" + text)
        raw = b"".join(column.astype("<f4").tobytes() for column in columns)
        packed = b"".join(bytes([31]) + raw[at : at + 32] for at in range(0, len(raw), 32))
        sizes = struct.pack("<II", len(packed), len(raw))
        found.append(head + b"binary_compressed\n" + sizes + packed)
    if kind == "laz":
        found += _other_laz(cloud)
    return found


def _other_laz(cloud: object) -> list[bytes]:
    """Return the same points in chunks of the older kind, and without chunks."""
    import laspy  # noqa: PLC0415

    las = laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
    las.xyz = cloud.xyz  # type: ignore[attr-defined]
    out = io.BytesIO()
    las.write(out, do_compress=True, laz_backend=laspy.LazBackend.Lazrs)
    return [out.getvalue(), pointwise(out.getvalue())]


def pointwise(data: bytes) -> bytes:
    """Return a chunked .laz with one chunk as LASzip 1.x wrote it: one stream, no table."""
    (start,) = struct.unpack_from("<I", data, 96)
    (table,) = struct.unpack_from("<q", data, start)
    head = bytearray(data[:start])
    record = head.index(b"laszip encoded") + 52
    struct.pack_into("<H", head, record, 1)
    struct.pack_into("<I", head, record + 12, 0)
    return bytes(head) + data[start + 8 : table]


def _saved(save: object, *args: object, **kwargs: object) -> bytes:
    out = io.BytesIO()
    save(out, *args, **kwargs)  # type: ignore[operator]
    return out.getvalue()


def mutated(data: bytes, random: Random) -> bytes:
    """Return a file with one to four changes: bits, numbers, pieces moved, cut or repeated."""
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if not out:
            break
        # headers decide what is believed, so half of the changes hit the beginning
        most = len(out) if random.random() < 0.5 else min(len(out), 512)
        at = random.randrange(most)
        kind = random.randrange(7)
        if kind == 0:
            out[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            out[at] = random.randrange(256)
        elif kind == 2:
            width = random.choice("BHIQ")
            number = random.choice(LARGE) & (1 << 8 * struct.calcsize(width)) - 1
            out[at : at + struct.calcsize(width)] = struct.pack("<" + width, number)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            del out[at : at + random.randint(1, 40)]
        elif kind == 5:
            out[at:at] = out[at : at + random.randint(1, 40)]
        else:
            digits = [i for i in range(most) if 48 <= out[i] <= 57]
            if digits:
                place = random.choice(digits)
                out[place : place + 1] = random.choice([b"9", b"-1", b"99999999", b"nan", b"1e300"])
    return bytes(out)


def child(kinds: list[str], start: int, count: int) -> None:
    """Read mutated files and say after each one what came of it."""
    import resource  # noqa: PLC0415

    import sparseconv as sc  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        valid = {kind: seeds(kind, Path(folder)) for kind in kinds}
        paths = {kind: Path(folder) / f"a.{'ply.gz' if kind == 'gz' else kind}" for kind in kinds}
        for kind in kinds:  # libraries are loaded before memory is limited
            for data in valid[kind]:
                paths[kind].write_bytes(data)
                assert len(sc.io.read_points(paths[kind])) == ROWS
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for kind in kinds:
            for seed in range(start, start + count):
                random = Random(f"{kind} {seed}")
                paths[kind].write_bytes(mutated(random.choice(valid[kind]), random))
                sys.stdout.write(f"{kind} {seed}\n")
                sys.stdout.flush()
                sys.stdout.write(json.dumps(verdict_of(paths[kind])) + "\n")


def verdict_of(path: Path) -> str:
    """Read a file; returns ``read``, ``refused``, or what was wrong."""
    import sparseconv as sc  # noqa: PLC0415

    before = time.perf_counter()
    try:
        sc.io.read_points(path)
        verdict = "read"
    except (sc.SparseConvError, OSError) as error:
        verdict = "refused" if "\n" not in str(error) else f"two lines: {error!r}"
        if isinstance(error.__cause__, MemoryError):
            verdict = f"memory: {error}"
    except BaseException as error:
        verdict = f"{type(error).__name__}: {error}"[:200]
    seconds = time.perf_counter() - before
    return f"slow: {seconds:.0f} s" if seconds > SLOW else verdict


def fuzz(kinds: list[str], count: int, start: int = 0) -> tuple[Counter[str], list[str]]:
    """Read ``count`` mutations of each format; returns what came of them, and what was wrong."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    command = [sys.executable, __file__, "--child", ",".join(kinds), str(start), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    for name, verdict in zip(lines[0::2], lines[1::2], strict=False):
        text = json.loads(verdict)
        counts[text if text in ("read", "refused") else "wrong"] += 1
        if text not in ("read", "refused"):
            wrong.append(f"{name}: {text}")
    if done.returncode:
        wrong.append(f"{lines[-1:]}: ended the process ({done.returncode}) {done.stderr[-300:]}")
    return counts, wrong


def main() -> int:
    """Fuzz every format; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="files of each format")
    parser.add_argument("--only", choices=FORMATS)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0].split(","), *map(int, options.child[1:]))
        return 0
    failures = 0
    for kind in [options.only] if options.only else FORMATS:
        start = time.perf_counter()
        counts, wrong = fuzz([kind], options.count, options.seed)
        failures += len(wrong)
        sys.stdout.write(f"{kind:5} {time.perf_counter() - start:6.1f} s  {dict(counts)}\n")
        sys.stdout.write("".join(f"  {line}\n" for line in wrong[:10]))
        sys.stdout.flush()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
