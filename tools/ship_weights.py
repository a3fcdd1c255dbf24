"""Write the weights of a training as the examples ship them: half precision, nothing else.

    make demo && python tools/ship_weights.py out/segment_lidar.pt
    sparseconv train FOLDER -o street_labeller.pt && python tools/ship_weights.py street_labeller.pt

What is needed to go on with the training stays behind. docs/model_card.md has the scores of the
rounded weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "weights"
KEPT = ("settings", "weights", "seen")


def main() -> None:
    """Round the weights of the file that is named and write them under its name."""
    source = Path(sys.argv[1])
    saved = torch.load(source, weights_only=True, map_location="cpu")
    kept = {name: saved[name] for name in KEPT}
    kept["weights"] = {
        name: value.half() if value.is_floating_point() and "running" not in name else value
        for name, value in saved["weights"].items()
    }
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / source.name
    torch.save(kept, target)
    print(f"wrote {target.name}, {target.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
