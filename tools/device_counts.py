"""Count launches, waits, bytes and FLOP on the pretended device; write tables and bounds.

``device_counts.py`` measures and writes ``counts.json`` and ``work.json`` of ``tests/devices``,
``docs/device_counts.md`` and the model in ``docs/devices.md``; ``device_counts.py --only NAME``
shows one call line by line.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import device_model
from devices import bench
from devices.budgets import CALLS, GOLDEN, MODEL, WORK, Call

PAGE = Path(__file__).resolve().parents[1] / "docs" / "device_counts.md"
SHOWN = 10  # lines of the package that the page names

HEAD = """# What a layer costs a device

Launches / host synchronisations of the plain engine, counted on the pretended device of
`tests/devices/bench.py`, whose docstring says what counts. Nothing here was timed, and no GPU was
involved. A call is counted at two sizes, in sites (MinkUNet at one): where the larger one costs
more, there is a loop over data. A budget is what the call shall need at any size.
`python tools/device_counts.py` writes this page; the counts are upper bounds in
`tests/devices/test_counts.py`.

"""


def measured(calls: dict[str, Call]) -> dict[str, dict[str, bench.Counts]]:
    """Return the counts of calls by name and number of sites."""
    table: dict[str, dict[str, bench.Counts]] = {}
    for name, call in calls.items():
        table[name] = {}
        for size in call.sizes:
            counts = table[name][str(size**2)] = call.count(size)
            print(name, size**2, *counts.totals, counts.bytes, counts.flop, flush=True)
    return table


def page(table: dict[str, dict[str, list[int]]], step: bench.Counts) -> str:
    """Return the page in Markdown."""
    lines = ["| call | small | large | budget |", "| --- | --- | --- | --- |"]
    for name, row in table.items():
        budget = CALLS[name].budget
        cells = [f"{count} sites: {a:,} / {b:,}" for count, (a, b) in row.items()]
        cells += ["as small"] * (2 - len(cells))
        goal = "no growth" if budget is None else f"{budget.launches:,} / {budget.syncs}"
        lines.append("| " + " | ".join([name, *cells, goal]) + " |")
    lines += ["", "## A MinkUNet training step, by function", ""]
    lines += ["| function | launches | synchronisations |", "| --- | --- | --- |"]
    for function, (launches, syncs) in by_function(step).items():
        lines.append(f"| `{function}` | {launches:,} | {syncs:,} |")
    return HEAD + "\n".join(lines) + "\n"


def by_function(counts: bench.Counts) -> dict[str, tuple[int, int]]:
    """Return launches and synchronisations of the functions that need most."""
    launches, syncs = Counter(), Counter()
    for total, counter in ((launches, counts.launches), (syncs, counts.syncs)):
        for (_, line), count in counter.items():
            total[re.sub(r":\d+ in", "", line)] += count
    return {name: (count, syncs[name]) for name, count in launches.most_common(SHOWN)}


def main() -> None:
    """Measure all calls and write the files, or show one call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(CALLS), help="show one call line by line")
    only = parser.parse_args().only
    bench.register()
    if only is not None:
        counts = CALLS[only].count(CALLS[only].sizes[-1])
        for line, (launches, syncs) in counts.by_line().items():
            print(f"{launches:7d} {syncs:6d}  {line}")
        print(f"{counts.totals[0]:7d} {counts.totals[1]:6d}  in all")
        return
    counted, model = measured(CALLS), measured(MODEL)
    table = numbers(counted, lambda counts: [*counts.totals])
    work = {
        "calls": numbers(counted, lambda counts: [counts.bytes, counts.flop]),
        "model": numbers(model, lambda counts: [*counts.totals, counts.bytes, counts.flop]),
    }
    (step,) = counted["MinkUNet training step"].values()
    GOLDEN.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    WORK.write_text(json.dumps(work, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(table, step), encoding="utf-8")
    device_model.write(work["model"])


def numbers(
    table: dict[str, dict[str, bench.Counts]], of: Callable[[bench.Counts], list[int]]
) -> dict[str, dict[str, list[int]]]:
    """Return some numbers of all counts."""
    return {name: {size: of(counts) for size, counts in row.items()} for name, row in table.items()}


if __name__ == "__main__":
    main()
