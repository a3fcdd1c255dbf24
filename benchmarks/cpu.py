"""The CPU engine against its floors and its peers: every row of the table, with ratio and bar.

    python -m benchmarks.cpu                      # everything: results/cpu.json and the README
    python -m benchmarks.cpu --only layer sites   # some groups; their rows replace those on file
    python -m benchmarks.cpu --threads 1          # every scene on one thread: longer than that
    python -m benchmarks.cpu --scene scan.bin     # a real scan, at 5 cm, or some of the scenes
    python -m benchmarks.cpu --profile minkunet   # where a whole network's time goes
    python -m benchmarks.cpu --pays products/narrow.py  # its rows with a kernel file and without

A row's contenders take turns in one process, and the medians are compared. Floors: ``mm`` is
``torch.mm`` alone, one product per kernel cell, on contiguous operands that exist; ``copy`` moves
the bytes that must move from the layer's input to a buffer that exists, while a layer also makes
its result's memory;
``sort + write`` is one ``np.argsort`` of the packed keys and one writing of the pairs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import torch

import sparseconv as sc
from benchmarks import (
    cpu_dense,
    cpu_growth,
    cpu_layers,
    cpu_memory,
    cpu_nets,
    cpu_shapes,
    cpu_sites,
    cpu_start,
    cpu_streams,
    cpu_threads,
    files,
    readme,
)
from benchmarks.nets import NETS
from benchmarks.pays import pays
from benchmarks.profile import profile
from benchmarks.rows import Row, line, show
from benchmarks.scenes import SCENES, load
from benchmarks.setting import Setting

Group = Callable[[Setting], Iterator[Row]]
ALL, ONE, TWO = ("lidar", "lidar4", "indoor"), ("lidar",), ("lidar", "indoor")
# per name: the functions, and per number of threads the scenes that are measured unless told
# otherwise; ten minutes are not enough for all of them
GROUPS: dict[str, tuple[tuple[Group, ...], dict[int, tuple[str, ...]]]] = {
    "sites": (cpu_sites.GROUPS, {2: ALL, 1: ONE}),
    "layer": (cpu_layers.GROUPS, {2: ALL, 1: ONE}),
    "stream": (cpu_streams.GROUPS, {2: ALL, 1: ONE}),
    "net": (cpu_nets.GROUPS, {2: TWO, 1: ONE}),
    "shape": (cpu_shapes.GROUPS, {2: ONE}),
    "threads": (cpu_threads.GROUPS, {2: ONE}),
    "dense": (cpu_dense.GROUPS, {2: ONE}),
    "memory": (cpu_memory.GROUPS, {2: TWO}),
    "growth": (cpu_growth.GROUPS, {2: ONE}),
    "start": (cpu_start.GROUPS, {2: ONE}),
}


def plan(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Return scene, group and number of threads of everything that was asked for."""
    found = []
    for name in options.only or GROUPS:
        usual = GROUPS[name][1]
        for count in [1] if options.cpu_time else options.threads or usual:
            # who names threads and no scene gets every scene of the group
            scenes = usual[max(usual)] if options.threads or count not in usual else usual[count]
            found += [(scene, name, count) for scene in options.scene or scenes]
    order = list(dict.fromkeys(scene for scene, _, _ in found))
    return sorted(found, key=lambda entry: order.index(entry[0]))


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Yield all rows that were asked for, scene by scene."""
    steps, before = plan(options), torch.get_num_threads()
    clock = time.process_time if options.cpu_time else time.perf_counter
    loaded: dict[str, sc.SparseTensor] = {}
    for scene, name, count in steps:
        if scene not in loaded:
            loaded = {scene: load(scene)}  # one at a time
        # a peer is measured once, with all of the threads that it may use
        most = max(other for _, same, other in steps if same == name)
        torch.set_num_threads(count)
        setting = Setting(
            files.short(scene), loaded[scene], count, count == most, options.quick, clock
        )
        for group in GROUPS[name][0]:
            yield from group(setting)
    torch.set_num_threads(before)


def _instead(options: argparse.Namespace) -> None:
    """Print a network's profile, or what a kernel file is worth."""
    functions = {name: group for name, (group, _) in GROUPS.items()}
    for scene in options.scene or ONE:
        for count in options.threads or [torch.get_num_threads()]:
            torch.set_num_threads(count)
            if options.profile:
                profile(options.profile, files.short(scene), load(scene))
            else:
                pays(options.pays, functions, files.short(scene), load(scene))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, help="groups of rows")
    parser.add_argument("--scene", nargs="+", help=f"of {', '.join(SCENES)}, or files of points")
    parser.add_argument("--threads", nargs="+", type=int, help="PyTorch's numbers of threads")
    parser.add_argument("--quick", action="store_true", help="one round of few cases, not written")
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine; not written")
    parser.add_argument("--profile", choices=NETS, metavar="NET", help="layer by layer instead")
    parser.add_argument("--pays", metavar="FILE", help="what a kernel file is worth instead")
    options = parser.parse_args(arguments)
    if options.profile or options.pays:
        _instead(options)
        return
    kept = not options.quick and not options.cpu_time
    known = files.read() if options.only or options.scene or options.threads else []
    for _ in sc.tools.warm_up():  # no row but that of the first call pays for compilation
        pass
    begin, rows = time.perf_counter(), []
    for row in measure(options):
        rows.append(row)
        sys.stdout.write(f"{time.perf_counter() - begin:6.0f} s  {line(row)}\n")
        sys.stdout.flush()
        if kept:  # a run that is cut off leaves what it has
            known = files.write([row], known)
    show(rows)
    if kept:
        readme.refresh()


if __name__ == "__main__":
    main()
