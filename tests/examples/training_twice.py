"""What each of two processes does: train, then train again with a kill in the middle, and go on."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import training
from scans import Scan, Settings, load

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(voxel_size=2.0, widths=(4, 8), steps=20, train_scans=4)
KILLED_AT = 13  # an epoch of two processes has two steps: the seventh is lost in its middle

_network_for = training.network_for


class Killed(Exception):
    """Stands for a process that ends at once."""


def in_float64() -> None:
    """Let every network be one of float64, where curves that are equal stay equal."""
    training.network_for = lambda settings: _network_for(settings).double()


@cache
def scans() -> list[Scan]:
    return [load(path) for path in sorted((ROOT / "data" / "train").glob("*.npz"))[:4]]


def trained(settings: Settings, who: training.Team, saved: Path) -> training.Trainer:
    trainer = training.Trainer(settings, scans(), who)
    trainer.run(saved, recomputing=True)
    return trainer


def killed_and_resumed(settings: Settings, who: training.Team, saved: Path) -> training.Trainer:
    trainer = training.Trainer(settings, scans(), who)
    step = trainer.step

    def fails(*batch: Any) -> None:
        if len(trainer.losses) == KILLED_AT:
            raise Killed
        step(*batch)

    trainer.step = fails
    try:
        trainer.run(saved)
    except Killed:
        trainer = training.Trainer(settings, scans(), who)
        trainer.resume(saved)
        assert len(trainer.losses) == KILLED_AT - 1
        trainer.run(saved)
    return trainer


def main(folder: Path) -> None:
    in_float64()
    with training.team("gloo") as who:
        whole = trained(SETTINGS, who, folder / "whole.pt")
        resumed = killed_and_resumed(SETTINGS, who, folder / "resumed.pt")
        network = whole.finished()
    if who.rank == 0:
        weights = {name: value.tolist() for name, value in network.state_dict().items()}
        found = {"whole": whole.losses, "resumed": resumed.losses, "weights": weights}
        (folder / "found.json").write_text(json.dumps({**found, "processes": who.size}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
