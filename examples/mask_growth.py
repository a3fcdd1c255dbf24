"""How the valid set grows, layer by layer, from one site: regular, partial, submanifold.

    python examples/mask_growth.py        # a second or two; writes out/mask_growth.png

A regular 3x3 layer makes every site active that it reaches: (2n + 1)^2 after n layers. A partial
one grows its mask the same way, and its values stay on the scale of the input; a submanifold one
keeps the site that there was. The colours are values after layers that average their window.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import torch

import sparseconv as sc

mpl.use("Agg")

SIZE, LAYERS = 11, 4
MEAN = torch.full((1, 1, 3, 3), 1 / 9)

Layer = Callable[[sc.SparseTensor], sc.SparseTensor]
KINDS: dict[str, Layer] = {
    "regular": lambda x: torch.nn.functional.conv2d(x, MEAN, padding=1),
    "partial": lambda x: sc.functional.partial_conv(x, MEAN, padding=1),
    "submanifold": lambda x: sc.functional.subm_conv(x, MEAN),
}


def grow(layer: Layer) -> list[sc.SparseTensor]:
    """Return one site, and what each layer makes of it."""
    middle = torch.tensor([[0, SIZE // 2, SIZE // 2]])
    steps = [sc.SparseTensor(torch.ones(1, 1), middle, (SIZE, SIZE))]
    for _ in range(LAYERS):
        steps.append(layer(steps[-1]))
    return steps


def draw(grown: dict[str, list[sc.SparseTensor]], path: Path) -> None:
    """Write the figure: a row per kind, a column per layer."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  # after the choice of the backend

    figure, axes = plt.subplots(
        *(len(grown), LAYERS + 1),
        figsize=(2 * LAYERS + 3, 2.2 * len(grown)),
        layout="constrained",
    )
    for line, (kind, steps) in zip(axes, grown.items(), strict=True):
        for layer, (place, x) in enumerate(zip(line, steps, strict=True)):
            values = x.dense(fill=float("nan"))[0, 0].numpy()
            shown = place.imshow(values, vmin=0, vmax=1, cmap="viridis", extent=(0, SIZE, 0, SIZE))
            place.set_xticks(range(SIZE + 1), labels=[])
            place.set_yticks(range(SIZE + 1), labels=[])
            place.grid(color="0.85", linewidth=0.5)
            place.tick_params(length=0)
            count = f"{x.num_sites} site" + "s" * (x.num_sites != 1)
            place.set_title(f"{kind}, input" if layer == 0 else count, fontsize=9)
    figure.colorbar(shown, ax=axes, label="value (each layer takes the mean of a 3 x 3 window)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the counts and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    grown = {kind: grow(layer) for kind, layer in KINDS.items()}
    print(f"{'sites after':14}" + "".join(f"{layer:5}" for layer in range(LAYERS + 1)))
    for kind, steps in grown.items():
        print(f"{kind:14}" + "".join(f"{x.num_sites:5}" for x in steps))
    path = options.output / "mask_growth.png"
    draw(grown, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
