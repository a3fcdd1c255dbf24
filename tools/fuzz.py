"""Call the library at random and exit with 1 where a call is wrong: ``fuzz.py --calls 10000``."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzz_layers import CALLS

SHOWN = 3  # failures of one kind that are printed in full


def fuzz(name: str, seeds: range) -> tuple[Counter[str], list[str]]:
    """Make one call per seed; returns what came of them, and the failures."""
    counts: Counter[str] = Counter()
    failures = []
    for seed in seeds:
        try:
            counts[CALLS[name](Random(seed))] += 1
        except Exception:
            counts["wrong"] += 1
            failures.append(f"--only {name} --seed {seed} --calls 1\n{traceback.format_exc()}")
    return counts, failures


def main() -> int:
    """Fuzz every kind of call; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000, help="number of calls, all kinds")
    parser.add_argument("--only", choices=sorted(CALLS), help="one kind of call")
    parser.add_argument("--seed", type=int, default=0, help="of the first call of each kind")
    options = parser.parse_args()
    names = [options.only] if options.only else list(CALLS)
    total: Counter[str] = Counter()
    start = time.perf_counter()
    for name in names:
        count = -(-options.calls // len(names))
        counts, failures = fuzz(name, range(options.seed, options.seed + count))
        total += counts
        print(f"{name:12}", *(f"{kind} {n}" for kind, n in sorted(counts.items())), sep="  ")
        print("\n".join(failures[:SHOWN]), end="")
    seconds = time.perf_counter() - start
    print(f"{total.total()} calls in {seconds:.0f} s:", dict(sorted(total.items())))
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
