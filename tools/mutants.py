"""Prove the tests: break the library in one place at a time and see that a test fails.

A mutant is one replaced piece of text. Each runs on its own copy of the package and the tests; the
named tests must pass on the copy before it is changed and fail afterwards. A mutant that survives
is a hole in the tests. Run it from the root of the repository::

    python tools/mutants.py            # all, a few minutes
    python tools/mutants.py --list
    python tools/mutants.py stride padding-in-the-key
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENOUGH_FAILURES = 20  # a mutant is dead after this many
LIMIT_S = 300
TESTS_FAILED = 1  # pytest's exit status; anything above is no verdict

GUARD = '''"""Fail unless the package under test is the copy beside this file."""

import pathlib

import sparseconv

_package = pathlib.Path(sparseconv.__file__).resolve()
assert pathlib.Path(__file__).resolve().parent in _package.parents, _package
'''


@dataclass(frozen=True)
class Mutant:
    """One way to break the library, and the tests that must notice.

    Attributes:
        name: what is broken.
        file: the file, in the package.
        old: the text to replace; must occur exactly once.
        new: what it becomes.
        tests: the file of tests, and which of them (pytest's ``-k``).
        engine: whose tests run: a fault above the engines shows on either.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, str]
    engine: str = "torch"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What pytest is told to run."""
        name, chosen = self.tests
        engine = "numba" if self.engine == "numba" else "not numba"
        (file,) = (ROOT / "tests").rglob(f"{name}.py")
        return str(file.relative_to(ROOT)), "-k", f"{engine} and ({chosen})" if chosen else engine


HIDDEN = " = __import__('dataclasses').field(compare=False)\n"
FOUND = """        layer = self._layers.get(geometry)
        if layer is None:
            layer = self._build(geometry)
"""
RULEBOOK = "test_rulebook", "by_hand"
CONV = "test_conv", "dense_one or from_dense"
TRANSPOSED = "test_conv", "conv_transpose or network_of_torchs"
KEY = "test_cache", "two_layers"
BUILT = "test_cache", "built_once or share_a_rulebook"
FREED = "test_cache", "die or leaves_nothing"
LAWS = "test_laws", "order_of_rows and subm and 16"
ERRORS = "test_errors", "channels or dtype"
SITES = "test_sites", "dict or repeated"
DERIVATIVES = "test_second_derivatives", "1d or 2d"
TENSOR = "test_tensor", "union or zeros or shared"
ENGINES = "test_engines", "backward"
DEFORM = "test_deform", "definition or border"
VOXELS = "test_voxelize", "dictionary or border"
MEMORY = "test_memory", "come_and_go"


def found_without(name: str) -> str:
    """Return what finds a layer without looking at one number of its geometry."""
    same = f"replace(key, {name}=geometry.{name}) == geometry"
    return f"""        from dataclasses import replace
        kept = self._layers
        layer = next((kept[key] for key in kept if {same}), None)
        if layer is None:
            layer = self._build(geometry)
"""


MUTANTS = (
    Mutant(
        "deform-swaps-the-corners",
        "functional/convolution/deform.py",
        "torch.stack([1 - part, part], dim=3)",
        "torch.stack([part, 1 - part], dim=3)",
        DEFORM,
    ),
    Mutant(
        "deform-ignores-dilation",
        "sites/taps.py",
        "steps = numbers // inner % geometry.kernel_size[axis] * geometry.dilation[axis]",
        "steps = numbers // inner % geometry.kernel_size[axis]",
        DEFORM,
    ),
    Mutant(
        "deform-reads-the-last-row-behind-the-border",
        "functional/convolution/deform.py",
        "inside = (corners >= 0) & (corners < length)",
        "inside = (corners >= 0) & (corners <= length)",
        DEFORM,
    ),
    Mutant(
        "dilation",
        "core/geometry.py",
        'per_axis("dilation", dilation, axes, least=1),',
        "(1,) * axes,",
        RULEBOOK,
    ),
    Mutant(
        "stride",
        "core/geometry.py",
        'per_axis("stride", stride, axes, least=1),',
        "(1,) * axes,",
        RULEBOOK,
    ),
    Mutant(
        "same-puts-no-padding-behind",
        "core/geometry.py",
        "return start, tuple(window - low for window, low in zip(windows, start, strict=True))",
        "return start, start",
        CONV,
    ),
    Mutant(
        "output-padding",
        "core/geometry.py",
        "- padding + window + extra",
        "- padding + window",
        TRANSPOSED,
    ),
    *(
        Mutant(f"{name}-in-the-key", "sites/sites.py", FOUND, found_without(name), KEY)
        for name in ("padding", "padding_end", "dilation", "stride")
    ),
    Mutant(
        "kind-in-the-key", "core/geometry.py", "    kind: Kind\n", "    kind: Kind" + HIDDEN, KEY
    ),
    Mutant("no-cache", "sites/sites.py", "if layer is None:", "if True:", BUILT),
    Mutant(
        "child-keeps-its-parent",
        "sites/sites.py",
        "record.parents = (Parent(geometry, self._record, rulebook),)",
        "record.parents = (Parent(geometry, self._record, rulebook),); record.__dict__['up']=self",
        FREED,
    ),
    Mutant(
        "site-law-loses-the-last-site",
        "sites/record.py",
        "top if lowest < 0 else min(top, size - 1)",
        "top if lowest < 0 else min(top, size - 2)",
        CONV,
    ),
    Mutant(
        "pairs-not-swapped",
        "core/rulebook.py",
        "            self.out_rows,\n            self.in_rows,\n",
        "            self.in_rows,\n            self.out_rows,\n",
        RULEBOOK,
    ),
    Mutant(
        "one-layout-for-both-directions",
        "core/rulebook.py",
        "            self.transposed_layouts,\n            self.layouts,\n",
        "            self.layouts,\n            self.layouts,\n",
        DERIVATIVES,
        "numba",
    ),
    Mutant(
        "kernel-flipped-in-backward",
        "autograd/products.py",
        "grads[0], weight.transpose(2, 3), ctx.rulebook.transposed",
        "grads[0], weight.flip(0).transpose(2, 3), ctx.rulebook.transposed",
        CONV,
    ),
    Mutant(
        "second-derivative-not-transposed",
        "autograd/products.py",
        "grad, grads[0].transpose(2, 3), ctx.rulebook.transposed",
        "grad, grads[0].flip(0).transpose(2, 3), ctx.rulebook.transposed",
        DERIVATIVES,
    ),
    Mutant(
        "backward-chooses-its-engine-again",
        "autograd/products.py",
        "features, scaled, ctx.rulebook, weight.shape[1], ctx.engine",
        "features, scaled, ctx.rulebook, weight.shape[1], engines.for_tensor(scaled)",
        ENGINES,
    ),
    Mutant(
        "groups",
        "functional/convolution/products.py",
        "else split.permute(3, 0, 2, 1)",
        "else split[:1].expand_as(split).permute(3, 0, 2, 1)",
        CONV,
    ),
    Mutant(
        "bias",
        "functional/convolution/products.py",
        "features, weight, None, bias, rulebook",
        "features, weight, None, 0 * bias, rulebook",
        CONV,
    ),
    Mutant(
        "channel-check",
        "functional/checks.py",
        "needed = weight[0] if transposed else weight[1] * count",
        "needed = channels",
        ERRORS,
    ),
    Mutant(
        "dtype-check",
        "functional/checks.py",
        "if parameter.dtype != input.dtype and",
        "if False and",
        ERRORS,
    ),
    Mutant(
        "repeated-sites",
        "sites/coordinates.py",
        "if not engines.for_tensor(coords).ascends(keys):",
        "if False:",
        SITES,
    ),
    Mutant(
        "rows-in-key-order",
        "engines/torch/keys.py",
        "position = index.order[position]",
        "pass",
        SITES,
    ),
    Mutant(
        "segment-sum-drops-the-last-row",
        "engines/numba/rows/sums.py",
        "for entry in range(starts[segment], starts[segment + 1]):\n"
        "            row = values[order[entry]]",
        "for entry in range(starts[segment], starts[segment + 1] - 1):\n"
        "            row = values[order[entry]]",
        VOXELS,
        "numba",
    ),
    Mutant(
        "reads-what-it-did-not-write",
        "engines/numba/rows/sums.py",
        "total = out[segment]\n        total[:] = 0\n",
        "total = out[segment]\n",
        VOXELS,
        "numba",
    ),
    Mutant(
        "memory-is-handed-out-twice",
        "engines/memory.py",
        "self.free[place : place + 1] = [(begin + size, end)] if end - begin > size else []",
        "pass",
        MEMORY,
    ),
    Mutant(
        "relu-passes-every-gradient",
        "autograd/elementwise.py",
        "threshold_backward(grads[0], result, 0,",
        "threshold_backward(grads[0], result, -1,",
        ("test_elementwise", "gradients"),
    ),
    Mutant(
        "quotient-is-not-corrected",
        "engines/numba/keys/kernels.py",
        "return found + np.int64(rest >= divisor) - np.int64(rest < 0)",
        "return found",
        ("engines/test_reach", "quotient"),
    ),
    Mutant(
        "team-keeps-errors-to-itself",
        "engines/numba/machine/launch.py",
        "own.store(_LONG(1), places[_FAILED])",
        "own.store(_LONG(0), places[_FAILED])",
        ("test_threads", "memory"),
    ),
    Mutant(
        "team-stays-at-a-fork",
        "engines/numba/machine/threads.py",
        "self.begin = 0",
        "pass",
        ("test_threads", "older"),
    ),
    Mutant(
        "last-part-is-as-long-as-the-others",
        "engines/numba/machine/launch.py",
        'last = own.select(own.icmp_signed("<", last, count), last, count)',
        "pass",
        ("test_threads", "once"),
    ),
    Mutant(
        "order-in-memory-is-not-looked-at",
        "engines/numba/machine/compile.py",
        "kinds += entry.dtype, entry.ndim, entry.flags.num",
        "kinds += entry.dtype, entry.ndim",
        ("test_threads", "order"),
    ),
    Mutant(
        "part-of-the-columns-begins-with-the-first-bias",
        "engines/numba/products/tiles.py",
        "origin = origins.ctypes.data + low * block_bytes",
        "origin = origins.ctypes.data",
        ("test_products", "cut"),
    ),
    Mutant(
        "few-matrices-are-cut-up",
        "engines/torch/products.py",
        "if missing > 0:",
        "if missing > 10**9:",
        ("test_laws", "number_of_threads"),
        "torch",
    ),
    Mutant(
        "compiled-code-of-other-sources-runs",
        "engines/numba/machine/cache.py",
        "digest.update(path.read_bytes())",
        "digest.update(path.name.encode())",
        ("test_compile_cache", "side_by_side"),
    ),
    Mutant(
        "compiled-code-of-old-versions-stays",
        "engines/numba/machine/cache.py",
        "for path in versions[:-KEPT]:",
        "for path in versions[:0]:",
        ("test_compile_cache", "least_recently"),
    ),
    Mutant(
        "caches-are-filled-under-a-transform",
        "core/private_torch.py",
        "with _without_transforms():",
        "if True:",
        ("test_transforms", "autograd"),
        "numba",
    ),
    Mutant(
        "statistics-of-blocks-are-only-added",
        "engines/numba/rows/statistics.py",
        "squares_of_part[column] + count * off * off",
        "squares_of_part[column]",
        ("test_norm", "every_site_active or half_precision"),
        "numba",
    ),
    Mutant(
        "few-columns-lose-lanes",
        "engines/numba/products/narrow.py",
        "halves = range(lanes), range(lanes, 2 * lanes)",
        "halves = range(lanes), range(lanes)",
        ("test_products", "products"),
        "numba",
    ),
    Mutant(
        "known-statistics-leave-the-mean",
        "engines/numba/rows/host.py",
        "shift = centre * -scale",
        "shift = centre * 0",
        ("test_norm", "number_of_any_library"),
        "numba",
    ),
    Mutant(
        "last-vector-of-a-row-is-not-scaled",
        "engines/numba/rows/sums.py",
        "for vectors, column in emitter.blocks(count, 4, 2):",
        "for vectors, column in emitter.blocks(emitter.plus(count, -1), 4, 2):",
        ("test_products", "scaled_and_summed"),
        "numba",
    ),
    Mutant(
        "rows-without-a-pair-stay-unset",
        "engines/numba/products/tiles.py",
        "for entry in range(first_from(tiled.unreached, opening * TILE_ROWS), behind):",
        "for entry in range(behind, behind):",
        ("test_products", "test_products or step_by_step"),
        "numba",
    ),
    Mutant(
        "rows-with-two-pairs-are-written-once",
        "engines/numba/rulebooks/tiles.py",
        "if missing.size == count - rows.size:",
        "if True:",
        ("test_products", "test_products"),
        "numba",
    ),
    Mutant(
        "lanes-take-the-first-of-their-group",
        "engines/numba/machine/vectors.py",
        "chosen = [lane - lane % width + channel for",
        "chosen = [lane - lane % width for",
        ("test_products", "test_products or step_by_step"),
        "numba",
    ),
    Mutant(
        "groups-are-cut-off-at-a-wrong-channel",
        "engines/numba/products/lanes.py",
        "target[group * wide + column] = source[group * narrow + column]",
        "target[group * wide + column] = source[group * both + column]",
        ("test_products", "test_products or see_each_other"),
        "numba",
    ),
    Mutant(
        "the-first-cell-is-chosen",
        "engines/numba/windows/largest.py",
        "new = values + mark(pair.number)",
        "new = values + mark(first)",
        ("test_pool", "derivatives or dtype"),
        "numba",
    ),
    Mutant(
        "large-windows-are-half-written",
        "engines/numba/machine/vectors.py",
        "for vector, value in enumerate(values)\n",
        "for vector, value in enumerate(values[:1])\n",
        ("test_pool", "too_large"),
        "numba",
    ),
    Mutant(
        "parts-forget-who-leads-nowhere",
        "engines/numba/keys/reach.py",
        "behind = not fits[cell, phase] or bases",
        "behind = bases",
        ("engines/test_reach", ""),
    ),
    Mutant(
        "sort-skips-the-last-digit",
        "engines/numba/keys/sort.py",
        "digits = -(-(high - low) // DIGIT_BITS)",
        "digits = (high - low) // DIGIT_BITS",
        ("test_sort", "sorted or sorting"),
    ),
    Mutant(
        "rows-share-a-product-of-any-size",
        "engines/torch/products.py",
        "rows = _in_blocks(x, rulebook.in_rows[start:end], BLOCK_ROWS)",
        "rows = _in_blocks(x, rulebook.in_rows[start:end], 1); "
        "BLOCK_ROWS = rows.shape[0]  # noqa: N806",
        LAWS,
    ),
    Mutant(
        "true-zeros",
        "tensor/forms.py",
        "if mask is None else checked_mask(t, mask)",
        "if mask is None else checked_mask(t, mask) & (t.detach() != 0).any(dim=1)",
        TENSOR,
    ),
    Mutant(
        "union-mixes-up-its-rows",
        "autograd/segments.py",
        ".index_copy(0, rows, values)",
        ".index_copy(0, rows.flip(0), values)",
        TENSOR,
    ),
    Mutant(
        "voxels-round-towards-zero",
        "points/cells.py",
        "cells = axis.div_(size).floor_()",
        "cells = axis.div_(size).trunc_()",
        VOXELS,
    ),
    Mutant(
        "points-on-faces-fall-below",
        "points/cells.py",
        "return torch.add(exact, lift, alpha=share, out=lift)",
        "return torch.add(exact, lift, alpha=0, out=lift)",
        ("test_faces", ""),
    ),
    Mutant(
        "origin-of-the-tight-box",
        "points/cells.py",
        "low = tuple(start // m * m for start, m in zip(first, multiple_of, strict=True))",
        "low = tuple(first)",
        ("test_one_grid", ""),
    ),
    Mutant(
        "levels-forget-the-shift",
        "core/grid.py",
        "moved = (a + c * s for a, c, s in zip(self.shift, first, self.stride, strict=True))",
        "moved = iter(self.shift)",
        ("test_grid", ""),
    ),
    Mutant(
        "samples-lead-back-to-the-whole-batch",
        "sites/batches.py",
        "return some_samples(living_sites(parent.record), numbers)[1].record",
        "return parent.record",
        ("test_way_back", "samples"),
    ),
)


def copy_of_the_project(folder: Path) -> None:
    """Copy the package and its tests, and add the check that this copy is the one imported."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("sparseconv", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "mutant_guard.py").write_text(GUARD, encoding="utf-8")


def run_tests(folder: Path, tests: tuple[str, ...], *options: str) -> tuple[int, str]:
    """Return pytest's exit status (below 0: the signal that ended it) and output."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",  # a mutant and its cure may share a time stamp
        "NUMBA_CACHE_DIR": str(folder / "numba_cache"),
        "HYPOTHESIS_PROFILE": "quick",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "mutant_guard", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *options, *tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL, f"ended after {LIMIT_S} s"
    return done.returncode, done.stdout + done.stderr


def mutate(folder: Path, mutant: Mutant) -> str:
    """Break the copy; return the text to put back.

    Raises:
        SystemExit: the text to replace is not there exactly once.
    """
    path = folder / "sparseconv" / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(
            f"{mutant.name}: {mutant.old!r} occurs {text.count(mutant.old)} times in "
            f"{mutant.file}; it must occur once: bring the mutant up to date"
        )
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    return text


def failures(output: str) -> int:
    """Return how many tests failed, from pytest's last line."""
    found = re.findall(r"(\d+) (?:failed|errors?)\b", output)
    return sum(map(int, found))


def kill(folder: Path, mutant: Mutant) -> tuple[str, bool]:
    """Run the tests on a mutant; return what happened and whether it died."""
    path = folder / "sparseconv" / mutant.file
    original = mutate(folder, mutant)
    try:
        status, output = run_tests(folder, mutant.arguments, f"--maxfail={ENOUGH_FAILURES}")
    finally:
        path.write_text(original, encoding="utf-8")
    if status == TESTS_FAILED:
        count = failures(output)
        return f"killed by {count}{'+' * (count >= ENOUGH_FAILURES)} tests", True
    if status < 0:
        return f"killed, and took Python with it: {signal.Signals(-status).name}", True
    if status == 0:
        return "SURVIVED", False
    return f"no verdict, pytest ended with {status}: {output.strip()[-300:]}", False


def check_all(mutants: list[Mutant], folders: list[Path]) -> int:
    """Run every mutant, one per folder at a time; return the number that did not die."""
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for folder in folders:
        copy_of_the_project(folder)
        for mutant in mutants:  # all of them are up to date, or none is run
            original = mutate(folder, mutant)
            (folder / "sparseconv" / mutant.file).write_text(original, encoding="utf-8")
        free.put(folder)

    def judge(tests: tuple[str, ...]) -> str:
        folder = free.get()
        status, output = run_tests(folder, tests)
        free.put(folder)
        return "" if status == 0 else f"{' '.join(tests)} fails without a mutant:\n{output[-2000:]}"

    def try_to_kill(mutant: Mutant) -> bool:
        folder = free.get()
        verdict, died = kill(folder, mutant)
        free.put(folder)
        print(f"{mutant.name:34} | {verdict}", flush=True)
        return died

    with ThreadPoolExecutor(len(folders)) as pool:
        unfit = [text for text in pool.map(judge, {m.arguments: None for m in mutants}) if text]
        if unfit:
            raise SystemExit("\n".join(unfit))
        print(f"{'mutant':34} | verdict")
        return list(pool.map(try_to_kill, mutants)).count(False)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="the mutants to run; all where left out")
    parser.add_argument("--list", action="store_true", help="show the mutants and end")
    parser.add_argument("--jobs", type=int, default=2, help="how many to run at a time")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}; see --list")
    chosen = [m for m in MUTANTS if not arguments.names or m.name in arguments.names]
    if arguments.list:
        for mutant in chosen:
            print(f"{mutant.name:34} | {mutant.file:26} | {' '.join(mutant.arguments)}")
        return 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder).resolve() / str(number) for number in range(arguments.jobs)]
        for entry in folders:
            entry.mkdir()
        alive = check_all(chosen, folders)
    dead = len(chosen) - alive
    print(f"{dead} of {len(chosen)} mutants died, in {time.monotonic() - start:.0f} s")
    return int(alive > 0)


if __name__ == "__main__":
    raise SystemExit(main())
