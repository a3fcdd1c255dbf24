"""Everything that a card should be asked, in eight minutes: ``python -m benchmarks.gpu``.

Phases run one after the other, each within its own seconds, and the file of results is written as
each one ends, so that a card that is taken away leaves what was measured until then. What no time
was left for is named in the file. ``--toy`` runs all of it on few sites, anywhere.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import sparseconv as sc
from benchmarks.gpu_phases import PHASES, Bench, Unmeasured

RESULTS = Path(__file__).with_name("results")


def run(bench: Bench, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the results so far as each phase ends."""
    results: dict[str, Any] = {
        "card": card(bench.device),
        "torch": torch.__version__,
        "sparseconv": sc.__version__,
        "toy": bench.toy,
        "phases": {},
    }
    for name in names:
        phase, seconds = PHASES[name]
        begin = time.perf_counter()
        bench.until, rows, left_out = begin + seconds, [], []
        for what, measure in phase(bench):
            if time.perf_counter() > bench.until:
                left_out.append(what)
                continue
            try:
                rows.append({"what": what, **measure()})
            except (Unmeasured, RuntimeError) as error:  # out of memory, or no kernel of this kind
                rows.append({"what": what, "not measured": str(error).partition("\n")[0]})
        spent = round(time.perf_counter() - begin, 1)
        results["phases"][name] = {"seconds": spent, "rows": rows, "no time for": left_out}
        yield results


def card(device: torch.device) -> str:
    """Return the name of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the phases and write the results of each as it ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--toy", action="store_true", help="few sites, to see that all of it runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="file of the results")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cpu" and not options.toy:
        parser.error("no GPU is here; --toy runs on the CPU")
    name = re.sub(r"[^a-z0-9]+", "_", card(device).lower())
    path = options.out or (None if options.toy else RESULTS / f"gpu_{name}.json")
    with sc.engine("torch"):
        for results in run(Bench(device, options.toy), options.phases):
            if path is not None:
                path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            name, phase = list(results["phases"].items())[-1]
            print(f"{name}: {phase['seconds']} s", flush=True)
            for row in phase["rows"]:
                print("   ", ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
