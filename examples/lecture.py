"""Every construct of a lecture on convolutional networks, as lines that run, dense and sparse.

    python examples/lecture.py [--output out/lecture] [topic ...]

Each topic prints a table, checks a formula against the layer that computes it, and writes the table
and, where there is something to see, a figure. Takes a few seconds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from lecture_figures import Figures
from torch import Tensor, nn

import sparseconv as sc
from sparseconv import reference

Lines = list[str]


def gap(left: Tensor, right: Tensor) -> str:
    """Return how far two results that should agree are apart."""
    largest = (left - right).abs().max().item()
    return f"difference {largest:.0e}" if largest else "difference 0"


def sparse_and_dense(layer: Callable[[Tensor], Tensor], x: sc.SparseTensor) -> str:
    """Return how far a layer on the active sites is from the same layer on the dense tensor."""
    y = layer(x)
    return gap(y.dense(), layer(x.dense()) * y.mask())


def dots(side: int = 8, channels: int = 2, seed: int = 0) -> sc.SparseTensor:
    """Return a few random active sites in a square."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.randn(1, channels, side, side, generator=generator)
    mask = torch.rand(1, 1, side, side, generator=generator) < 0.3
    return sc.SparseTensor.from_dense(t, mask)


def connections(figures: Figures) -> Lines:
    """Fully connected, locally connected, shared weights."""
    x, size, k = torch.randn(1, 1, 32, 32), 28, 5
    shared = nn.Conv2d(1, 1, k, bias=False)
    windows = F.unfold(x, k)[0]  # [25, 784]
    layer = sc.nn.LocallyConnected2d(1, 1, k, 32, bias=False)
    local = shared.weight.reshape(1, -1).repeat(size * size, 1)  # a row of weights per output
    full = torch.zeros(size * size, 32 * 32)
    for row in range(size):
        for column in range(size):
            patch = full[row * size + column].view(32, 32)[row : row + k, column : column + k]
            patch.copy_(shared.weight[0, 0].detach())
    expected = shared(x).flatten()
    ends = torch.arange(10)[:, None] + torch.arange(3)  # the windows of 3 of 12 inputs in a row
    matrices = {
        "fully connected": torch.randn(10, 12),
        "locally connected": torch.zeros(10, 12).scatter_(1, ends, torch.randn(10, 3)),
        "shared": torch.zeros(10, 12).scatter_(1, ends, torch.tensor([[1.0, -2.0, 1.5]] * 10)),
    }
    figures.matrices("connections", {
        f"{name}: {len(values[values != 0].unique())} weights": values
        for name, values in matrices.items()
    })  # fmt: skip
    return [
        f"32 x 32 pixels to {size} x {size} units, windows of {k} x {k}",
        f"fully connected    {full.numel():>9,} weights, {gap(full @ x.flatten(), expected)}",
        f"locally connected  {layer.weight.numel():>9,} weights, "
        f"{gap((local * windows.T).sum(1), expected)}",
        f"shared             {shared.weight.numel():>9,} weights",
    ]


def convolution(figures: Figures) -> Lines:
    """One channel by hand, then several channels."""
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    one = F.conv1d(x, torch.tensor([[[1.0, 0.0, -1.0]]]))
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    two = F.conv2d(image, torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]]]))
    many = nn.Conv2d(3, 5, 3)
    t = torch.randn(1, 3, 8, 8)
    by_channel = sum(F.conv2d(t[:, c : c + 1], many.weight[:, c : c + 1]) for c in range(3))
    by_channel = by_channel + many.bias[:, None, None]
    return [
        f"[1 2 3 4] with [1 0 -1]: {one.flatten().int().tolist()}",
        f"0..15 in 4 x 4 with [[1 0] [0 -1]]: {two.flatten().int().tolist()}",
        f"3 channels to 5, 3 x 3: {many.weight.numel()} weights and {many.bias.numel()} biases; "
        f"the sum over channels: {gap(by_channel, many(t))}",
        f"on active sites alone: {sparse_and_dense(nn.Conv2d(3, 5, 3), dots(channels=3))}",
    ]


def output_size(figures: Figures) -> Lines:
    """Padding, stride, dilation: floor((L + 2p - d(k-1) - 1)/s + 1)."""
    lines = [f"{'L':>4}{'k':>4}{'s':>4}{'p':>4}{'d':>4}{'formula':>9}{'torch':>7}{'sparse':>8}"]
    for length, k, s, p, d in [
        (32, 5, 1, 0, 1), (32, 3, 1, 1, 1), (32, 3, 2, 1, 1), (7, 3, 2, 0, 1), (7, 3, 1, 0, 2),
        (7, 3, 1, 2, 2), (224, 7, 2, 3, 1), (28, 2, 2, 0, 1),
    ]:  # fmt: skip
        formula = math.floor((length + 2 * p - d * (k - 1) - 1) / s + 1)
        layer = nn.Conv1d(1, 1, k, s, p, d)
        sparse = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 3]]), (length,))
        sizes = formula, layer(torch.zeros(1, 1, length)).shape[2], layer(sparse).shape[2]
        lines.append(f"{length:>4}{k:>4}{s:>4}{p:>4}{d:>4}{sizes[0]:>9}{sizes[1]:>7}{sizes[2]:>8}")
    return lines


def transposed(figures: Figures) -> Lines:
    """Transposed convolution in two settings, and bilinear upsampling as one of them."""
    lines = []
    for name, size, options in [
        ("stride 1, no padding", 2, {}),
        ("stride 2, padding 1", 3, {"stride": 2, "padding": 1}),
    ]:
        layer = nn.ConvTranspose2d(1, 1, 3, bias=False, **options)
        x = torch.randn(1, 1, size, size)
        y = layer(x)
        # the transpose of the convolution from the large image to the small one
        u = torch.randn_like(y)
        down = F.conv2d(u, layer.weight, **options)
        lines.append(
            f"{name}: {size} x {size} to {y.shape[2]} x {y.shape[3]}, "
            f"<conv(u), x> = <u, transposed(x)>: {gap((down * x).sum(), (u * y).sum())}, "
            f"on active sites alone: {sparse_and_dense(layer, dots(size + 3, 1))}"
        )
    x = torch.rand(1, 1, 4, 4)
    near = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = torch.outer(near, near)[None, None]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    up = F.conv_transpose2d(padded, kernel, stride=2, padding=3)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    figures.images("transposed", {"4 x 4": x[0, 0], "bilinear, 8 x 8": up[0, 0]}, (0.0, 1.0))
    lines.append(f"bilinear upsampling by 2 is one with a fixed 4 x 4 kernel: {gap(up, expected)}")
    every = sc.SparseTensor.from_dense(x)
    bilinear = nn.Upsample(scale_factor=2, mode="bilinear")
    lines.append(f"with every site active: {gap(bilinear(every).dense(), expected)}")
    return lines


def groups(figures: Figures) -> Lines:
    """Grouped, depthwise and pointwise: parameters and FLOPs on a 28 x 28 map."""
    lines = [f"{'64 to 128 channels':<32}{'weights':>9}{'MFLOPs':>9}"]
    kinds = {
        "full 3 x 3": [nn.Conv2d(64, 128, 3, padding=1, bias=False)],
        "4 groups 3 x 3": [nn.Conv2d(64, 128, 3, padding=1, groups=4, bias=False)],
        "depthwise 3 x 3": [nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)],
        "pointwise 1 x 1": [nn.Conv2d(64, 128, 1, bias=False)],
    }
    kinds["depthwise and pointwise"] = kinds["depthwise 3 x 3"] + kinds["pointwise 1 x 1"]
    for name, layers in kinds.items():
        weights = sum(layer.weight.numel() for layer in layers)
        lines.append(f"{name:<32}{weights:>9,}{2 * weights * 28 * 28 / 1e6:>9.2f}")
    x = dots(channels=64)
    for name, layers in kinds.items():
        lines.append(f"{name} on active sites: {sparse_and_dense(nn.Sequential(*layers), x)}")
    return lines


def backward(figures: Figures) -> Lines:
    """Forward and backward of a 1D convolution by the formulas, against autograd."""
    x = torch.tensor([[[1.0, 2.0, 0.0, -1.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([[[2.0, 1.0, -1.0]]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    y = F.conv1d(x, w, b)
    grad = torch.tensor([[[1.0, 2.0, -1.0]]], dtype=torch.float64)
    d_x, d_w, d_b = torch.autograd.grad(y, (x, w, b), grad)
    # dL/dx: the gradient, padded by k - 1, with the flipped kernel; dL/dw: the input with it
    by_hand = F.conv1d(F.pad(grad, (2, 2)), w.flip(2)), F.conv1d(x, grad), grad.sum().reshape(1)
    ours = [
        reference.conv_input_grad(grad, w, (5,)),
        reference.conv_weight_grad(x, grad, (3,)),
        reference.conv_bias_grad(grad),
    ]
    lines = [f"y     = {y.flatten().tolist()}, {gap(y, reference.conv(x, w, b))}"]
    for name, auto, hand, loops in zip(
        ("dL/dx", "dL/dw", "dL/db"), (d_x, d_w, d_b), by_hand, ours, strict=True
    ):
        lines.append(f"{name} = {auto.flatten().tolist()}, {gap(auto, hand)}, {gap(auto, loops)}")
    sparse = sc.SparseTensor.from_dense(x.detach()).requires_grad_()  # the 0 is no active site
    out = F.conv1d(sparse, w, b)
    own = torch.autograd.grad(out.dense(), (sparse.features, w, b), grad)
    kept = (d_x[0, 0, sparse.coords[:, 1], None], d_w, d_b)
    gaps = ", ".join(gap(left, right) for left, right in zip(own, kept, strict=True))
    lines.append(f"on the {sparse.num_sites} active sites: {gaps}")
    return lines


def chain(*layers: tuple[int, int]) -> nn.Sequential:
    """Return one-channel convolutions of the given kernels and strides, each padded to centre."""
    return nn.Sequential(*(nn.Conv2d(1, 1, k, s, k // 2) for k, s in layers))


def fields(model: nn.Sequential, size: int) -> list[tuple[int, int, float]]:
    """Return r, jump and start after each layer: r' = r + (k - 1) j, j' = j s."""
    r, jump, start, rows = 1, 1, 0.0, []
    for layer in model:
        (k, _), (s, _), (p, _) = layer.kernel_size, layer.stride, layer.padding
        start += ((k - 1) / 2 - p) * jump
        r, jump = r + (k - 1) * jump, jump * s
        rows.append((r, jump, start))
    found = sc.receptive_field(model, (size, size))
    known = [(field.r[0], field.jump[0], float(field.start[0])) for field in found]
    if known != rows:
        raise ValueError(f"the formula gives {rows}, receptive_field {known}")
    return rows


VGG_16 = [pair for count in (2, 2, 3, 3, 3) for pair in [(3, 1)] * count + [(2, 2)]]
RESNET_50 = [(7, 2), (3, 2)] + [
    pair
    for stage, count in enumerate((3, 4, 6, 3))
    for block in range(count)
    for pair in [(1, 2 if stage and not block else 1), (3, 1), (1, 1)]
]


def receptive_field(figures: Figures) -> Lines:
    """Receptive fields: the drawn example, VGG-16 and ResNet-50."""
    drawn = fields(chain((3, 2), (3, 2)), 15)
    lines = [f"two 3 x 3 layers of stride 2: r {drawn[0][0]}, {drawn[1][0]}; "
             f"jump {drawn[0][1]}, {drawn[1][1]}"]  # fmt: skip
    curves = {}
    for name, layers in (("VGG-16", VGG_16), ("ResNet-50", RESNET_50)):
        rows = fields(chain(*layers), 224)
        curves[name] = [row[0] for row in rows]
        lines.append(f"{name}: r {rows[-1][0]}, jump {rows[-1][1]} after the last of "
                     f"{len(rows)} layers with a window")  # fmt: skip
    figures.curves("receptive_field", curves, "layer", "receptive field, pixels")
    return lines


def equivariance(figures: Figures) -> Lines:
    """A moved input gives the moved output."""
    layer, moved = nn.Conv2d(2, 3, 3, padding=1), (0, 2, 3)
    x = dots(6)
    x = sc.SparseTensor(x.features, x.coords + torch.tensor([0, 1, 1]), (12, 12))
    y = sc.SparseTensor(x.features, x.coords + torch.tensor(moved), (12, 12))
    there = layer(y)
    back = layer(x).at(there.coords - torch.tensor(moved))[0]
    dense = layer(F.pad(x.dense(), (1, 1, 1, 1)))
    other = layer(F.pad(y.dense(), (1, 1, 1, 1)))
    return [
        f"dense, moved by 2 and 3: {gap(other[:, :, 2:, 3:], dense[:, :, :-2, :-3])}",
        f"active sites, moved by 2 and 3: {gap(there.features, layer(x).features[back])}",
    ]


def activations(figures: Figures) -> Lines:
    """Sigmoid, softmax, ReLU, PReLU."""
    t = torch.tensor([-2.0, 0.0, 1.0])
    layers = {
        "sigmoid": nn.Sigmoid(),
        "softmax": nn.Softmax(dim=1),
        "ReLU": nn.ReLU(),
        "PReLU, slope 0.25": nn.PReLU(),
    }
    x, lines = dots(channels=3), [f"{'of -2, 0, 1':<20}"]
    for name, layer in layers.items():
        values = " ".join(f"{value:7.4f}" for value in layer(t[None])[0].tolist())
        lines.append(f"{name:<20}{values}   on active sites: {sparse_and_dense(layer, x)}")
    axis = torch.linspace(-3, 3, 61)
    curves = {name: layer(axis).tolist() for name, layer in layers.items() if name != "softmax"}
    figures.curves("activations", curves, "x", "y", axis.tolist())
    return lines


def dropout(figures: Figures) -> Lines:
    """2D dropout: whole channels go, the others grow."""
    torch.manual_seed(0)
    x, layer = dots(channels=1000), nn.Dropout2d(0.4)
    lines = []
    for name, values in (
        ("dense", layer(torch.ones(1, 1000, 8, 8)).flatten(2)[0]),
        ("active sites", layer(x.replace(torch.ones_like(x.features))).features.T),
    ):
        kept = values.amax(dim=1)
        whole = bool((values == kept[:, None]).all())
        lines.append(f"{name}: {100 * (kept > 0).float().mean():.0f} % of the channels kept, "
                     f"whole: {whole}, factor {kept.max():.4f}")  # fmt: skip
    return lines


def normalisation(figures: Figures) -> Lines:
    """2D batch normalisation: mean 0 and variance 1 a channel, over what is active."""
    x, layer = dots(16, 3), nn.BatchNorm2d(3)
    t = torch.randn(4, 3, 5, 5)
    mean, var = t.mean((0, 2, 3)), t.var((0, 2, 3), unbiased=False)
    by_hand = (t - mean[:, None, None]) / torch.sqrt(var[:, None, None] + layer.eps)
    rows = x.features
    own = (rows - rows.mean(0)) / torch.sqrt(rows.var(0, unbiased=False) + layer.eps)
    return [f"dense: {gap(layer(t), by_hand)}",
            f"over {x.num_sites} active sites of 256: {gap(layer(x).features, own)}"]  # fmt: skip


def pooling(figures: Figures) -> Lines:
    """Max, average and global pooling."""
    image = torch.tensor([[1.0, 3.0, 2.0, 0.0], [4.0, 2.0, 0.0, 1.0], [0.0, 0.0, 5.0, 6.0],
                          [0.0, 8.0, 7.0, 2.0]])[None, None]  # fmt: skip
    x = dots()
    t = x.dense()
    sums = t.sum((2, 3)) / x.num_sites
    most = t.masked_fill(~x.mask(), -torch.inf).amax((2, 3))
    return [
        f"max 2 x 2: {F.max_pool2d(image, 2).flatten().tolist()}",
        f"average 2 x 2: {F.avg_pool2d(image, 2).flatten().tolist()}",
        f"global: max {image.max().item()}, average {image.mean().item()}",
        f"average on active sites: {sparse_and_dense(nn.AvgPool2d(2), x)}",
        f"max on active sites: {gap(nn.MaxPool2d(2)(x).features, windows_max(x))}",
        f"global average over active sites: {gap(sc.nn.GlobalAvgPool()(x), sums)}",
        f"global max over active sites: {gap(sc.nn.GlobalMaxPool()(x), most)}",
    ]


def windows_max(x: sc.SparseTensor) -> Tensor:
    """Return the maxima of 2 x 2 windows over active sites, minus infinity elsewhere."""
    y = F.max_pool2d(x.dense(fill=-torch.inf), 2)
    return sc.SparseTensor.from_dense(y, y[:, :1] > -torch.inf).features


def deformable(figures: Figures) -> Lines:
    """Deformable convolution, v1 and v2."""
    t, x = torch.randn(1, 2, 9, 9), dots(9)
    v1 = sc.nn.DeformConv2d(2, 4, 3, padding=1, bias=False)
    v2 = sc.nn.DeformConv2d(2, 4, 3, padding=1, bias=False, modulated=True)
    plain = F.conv2d(t, v1.weight, padding=1)
    half = F.conv2d(t, v2.weight, padding=1) / 2
    lines = [f"v1, fresh, is the plain convolution: {gap(v1(t), plain)}",
             f"v2, fresh, is half of it: {gap(v2(t), half)}"]  # fmt: skip
    torch.manual_seed(1)
    for layer in (v1, v2):
        nn.init.normal_(layer.offset.weight, std=0.2)
    shift = v1.offset(t)
    figures.samples("deformable", t[0].norm(dim=0), shift[0, :, 4, 4].reshape(9, 2), (4, 4))
    definition = reference.deform_conv(t, shift, v1.weight, padding=1)
    lines.append(f"v1 against its definition: {gap(v1(t), definition)}")
    every = sc.SparseTensor.from_dense(t, torch.ones(1, 1, 9, 9, dtype=torch.bool))
    lines.append(f"v2 with every site active is the dense one: {gap(v2(every).dense(), v2(t))}")
    for name, layer in (("v1", v1), ("v2", v2)):
        lines.append(f"{name} on {x.num_sites} active sites: {layer(x).num_sites} output sites, "
                     f"{sparse_and_dense(layer, x)}")  # fmt: skip
    return lines


def partial(figures: Figures) -> Lines:
    """Partial convolution: |1|/sum(m) * sum(m w x) + b where sum(m) > 0, else 0."""
    layer = sc.nn.PartialConv2d(1, 1, 3, padding=1)
    nn.init.constant_(layer.weight, 1 / 9)
    x = torch.linspace(1, 3, 12).expand(1, 1, 12, 12)
    mask = torch.rand(x.shape) < 0.6
    mask[..., 3:9, 3:9] = False
    valid = mask.to(x.dtype)
    seen = F.conv2d(valid, torch.ones(1, 1, 3, 3), padding=1)
    products = F.conv2d(x * valid, layer.weight, padding=1)
    expected = torch.where(seen > 0, 9 / seen.clamp(min=1) * products + layer.bias, 0.0)
    y, filled = layer(x, mask)
    sparse = layer(sc.SparseTensor.from_dense(x, mask))
    same, _ = layer(torch.full_like(x, 2.0), mask)
    nothing = torch.tensor(torch.nan)
    figures.images("partial", {
        "input, with holes": torch.where(mask, x, nothing)[0, 0],
        "convolution": products[0, 0],
        "partial convolution": torch.where(filled, y - layer.bias, nothing)[0, 0],
    }, (0.0, 3.0))  # fmt: skip
    return [
        f"dense, with a mask: {gap(y, expected)}",
        f"on active sites alone: {gap(sparse.dense(), expected)}",
        f"{int((~mask).sum())} empty cells before, {int((~filled).sum())} after",
        f"a mean of what is valid stays that mean: {gap(same[filled], 2 + layer.bias)}",
    ]


def submanifold(figures: Figures) -> Lines:
    """Regular convolutions spread over ever more sites, submanifold ones stay."""
    regular = kept = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 7, 7]]), (15, 15))
    lines = [f"{'layers':>8}{'regular':>9}{'submanifold':>13}", f"{0:>8}{1:>9}{1:>13}"]
    sizes = [1]
    for depth in range(1, 4):
        regular = nn.Conv2d(1, 1, 3, padding=1)(regular)
        kept = sc.nn.SubmConv2d(1, 1, 3)(kept)
        lines.append(f"{depth:>8}{regular.num_sites:>9}{kept.num_sites:>13}")
        sizes.append(regular.num_sites)
    growth = ", ".join(f"{after / before:.2f}" for before, after in pairwise(sizes))
    lines.append(f"growth of the regular ones: {growth}")
    x, layer = dots(), sc.nn.SubmConv2d(2, 3, 3, bias=False)
    lines.append(f"the dense layer at the active sites: {sparse_and_dense(layer, x)}")
    figures.images("submanifold", _spread(), (0.0, 1.0))
    return lines


def _spread() -> dict[str, Tensor]:
    """Return a curve of active sites, and what is active after three layers of both kinds."""
    turn = torch.linspace(0, 5, 200)
    curve = torch.stack([14 + 9 * torch.sin(turn), 14 + 9 * torch.cos(turn)], dim=1).round().long()
    coords = F.pad(curve.unique(dim=0), (1, 0))
    x = sc.SparseTensor(torch.ones(len(coords), 1), coords, (29, 29))
    regular = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)))
    kept = nn.Sequential(*(sc.nn.SubmConv2d(1, 1, 3) for _ in range(3)))
    results = {"active sites": x, "3 regular layers": regular(x), "3 submanifold": kept(x)}
    return {f"{name}: {y.num_sites}": y.mask()[0, 0].float() for name, y in results.items()}


TOPICS: list[Callable[[Figures], Lines]] = [
    connections, convolution, output_size, transposed, groups, backward, receptive_field,
    equivariance, activations, dropout, normalisation, pooling, deformable, partial, submanifold,
]  # fmt: skip


def lecture(out: Path, chosen: Sequence[str] = ()) -> None:
    """Run the topics, print their tables and write tables and figures to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    figures = Figures(out)
    for topic in TOPICS:
        if chosen and topic.__name__ not in chosen:
            continue
        torch.manual_seed(0)
        title = (topic.__doc__ or "").strip()
        text = "\n".join([title, *(f"  {line}" for line in topic(figures))])
        print(text + "\n")
        (out / f"{topic.__name__}.txt").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [topic.__name__ for topic in TOPICS]
    parser.add_argument("topics", nargs="*", metavar="topic", help=", ".join(names))
    parser.add_argument("--output", type=Path, default=Path("out/lecture"))
    arguments = parser.parse_args()
    unknown = set(arguments.topics) - set(names)
    if unknown:
        parser.error(f"no such topic: {', '.join(sorted(unknown))}")
    lecture(arguments.output, arguments.topics)


if __name__ == "__main__":
    main()
