"""Networks written for spconv, in the manner of the code bases that use it.

Each function takes the module that is imported as ``spconv``: the library itself, or its names
here. The forwards hold what clients do: features replaced, tensors built anew, `indice_key`.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor, nn

NORM = functools.partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


def _block(spconv: Any, kind: str, c_in: int, c_out: int, key: str, **window: Any) -> nn.Module:
    """Return a convolution, its normalisation and its ReLU, as OpenPCDet writes them."""
    if kind == "inverse":
        convolution = spconv.SparseInverseConv3d(c_in, c_out, 3, indice_key=key, bias=False)
    else:
        make = spconv.SubMConv3d if kind == "subm" else spconv.SparseConv3d
        convolution = make(c_in, c_out, bias=False, indice_key=key, **{"kernel_size": 3} | window)
    return spconv.SparseSequential(convolution, NORM(c_out), nn.ReLU())


class _Reading(nn.Module):
    """A network that makes its own tensor of voxel features and indices."""

    def __init__(self, spconv: Any) -> None:
        super().__init__()
        self.tensor_class = spconv.SparseConvTensor

    def tensor(self, features: Tensor, indices: Tensor, shape: Any, batch: int) -> Any:
        """Return spconv's tensor of the voxels."""
        return self.tensor_class(
            features=features, indices=indices.int(), spatial_shape=shape, batch_size=batch
        )


class VoxelBackbone(_Reading):
    """A backbone of eightfold stride in the manner of OpenPCDet; returns the bird's-eye view."""

    def __init__(self, spconv: Any, channels: int = 4, widths: tuple[int, ...] = (16, 32, 64, 64)):
        super().__init__(spconv)
        block = functools.partial(_block, spconv)
        first = widths[0]
        self.conv_input = block("subm", channels, first, "subm1", padding=1)
        self.stages = nn.ModuleList([spconv.SparseSequential(block("subm", first, first, "subm1"))])
        for number, (c_in, c_out) in enumerate(itertools.pairwise(widths), 2):
            padding = (0, 1, 1) if number == 4 else 1
            self.stages.append(
                spconv.SparseSequential(
                    block("spconv", c_in, c_out, f"spconv{number}", stride=2, padding=padding),
                    block("subm", c_out, c_out, f"subm{number}", padding=1),
                    block("subm", c_out, c_out, f"subm{number}", padding=1),
                )
            )
        window = {"kernel_size": (3, 1, 1), "stride": (2, 1, 1)}
        self.conv_out = block("spconv", widths[-1], 2 * widths[-1], "down", padding=0, **window)

    def forward(self, features: Tensor, indices: Tensor, shape: Any, batch: int) -> Tensor:
        """Return ``[B, C * D, H, W]``."""
        x = self.conv_input(self.tensor(features, indices, shape, batch))
        for stage in self.stages:
            x = stage(x)
        return self.conv_out(x).dense().flatten(1, 2)


class SecondMiddle(_Reading):
    """A middle extractor in the manner of SECOND: one long sequence, then the bird's-eye view."""

    def __init__(self, spconv: Any, channels: int = 4, widths: tuple[int, ...] = (16, 32, 64)):
        super().__init__(spconv)
        layers: list[nn.Module] = []

        def add(convolution: nn.Module) -> None:
            layers.extend((convolution, NORM(convolution.out_channels), nn.ReLU()))

        def subm(c_in: int, c_out: int, key: str) -> nn.Module:
            return spconv.SubMConv3d(c_in, c_out, 3, indice_key=key, bias=False)

        a, b, c = widths
        add(subm(channels, a, "subm0"))
        add(subm(a, a, "subm0"))
        for number, (c_in, c_out) in enumerate([(a, b), (b, c), (c, c)], 1):
            padding = [0, 1, 1] if number == 3 else 1
            add(spconv.SparseConv3d(c_in, c_out, 3, 2, padding=padding, bias=False))
            for _ in range(2 if number == 1 else 3):
                add(subm(c_out, c_out, f"subm{number}"))
        add(spconv.SparseConv3d(c, c, (3, 1, 1), (2, 1, 1), bias=False))
        self.middle_conv = spconv.SparseSequential(*layers, spconv.ToDense())

    def forward(self, features: Tensor, indices: Tensor, shape: Any, batch: int) -> Tensor:
        """Return ``[B, C * D, H, W]``."""
        return self.middle_conv(self.tensor(features, indices, shape, batch)).flatten(1, 2)


@functools.cache
def _residual(spconv: Any) -> Any:
    """Return the block of :class:`SparseUNet`, which spconv must know as a sparse module."""

    class Residual(spconv.SparseModule):
        """Two convolutions and what they are added to."""

        def __init__(self, c_in: int, c_out: int, key: str) -> None:
            super().__init__()
            layers: list[nn.Module] = [nn.Identity()]
            if c_in != c_out:
                layers = [spconv.SubMConv3d(c_in, c_out, 1, bias=False), NORM(c_out)]
            self.proj = spconv.SparseSequential(*layers)
            window = {"kernel_size": 3, "padding": 1, "bias": False, "indice_key": key}
            self.conv1 = spconv.SubMConv3d(c_in, c_out, **window)
            self.bn1, self.relu = NORM(c_out), nn.ReLU()
            self.conv2 = spconv.SubMConv3d(c_out, c_out, **window)
            self.bn2 = NORM(c_out)

        def forward(self, x: Any) -> Any:
            """Return the sum behind its ReLU."""
            out = self.conv1(x)
            out = out.replace_feature(self.relu(self.bn1(out.features)))
            out = self.conv2(out)
            out = out.replace_feature(self.bn2(out.features))
            out = out.replace_feature(out.features + self.proj(x).features)
            return out.replace_feature(self.relu(out.features))

    return Residual


class SparseUNet(_Reading):
    """A U-Net for segmentation in the manner of Pointcept; returns a row for each voxel."""

    def __init__(
        self,
        spconv: Any,
        channels: int = 4,
        classes: int = 13,
        widths: tuple[int, ...] = (32, 32, 64, 128, 256, 256, 128, 96, 96),
        depths: tuple[int, ...] = (2, 3, 4, 6, 2, 2, 2, 2),
    ) -> None:
        super().__init__(spconv)
        stages = len(depths) // 2
        self.conv_input = spconv.SparseSequential(
            spconv.SubMConv3d(channels, widths[0], 5, padding=1, bias=False, indice_key="stem"),
            NORM(widths[0]),
            nn.ReLU(),
        )
        self.down, self.enc, self.up, self.dec = (nn.ModuleList() for _ in range(4))
        skips = [widths[0]]
        for s in range(stages):
            c_in, c_out = widths[s], widths[s + 1]
            self.down.append(
                spconv.SparseSequential(
                    spconv.SparseConv3d(c_in, c_out, 2, 2, bias=False, indice_key=f"spconv{s}"),
                    NORM(c_out),
                    nn.ReLU(),
                )
            )
            self.enc.append(self._blocks(spconv, [c_out] * (depths[s] + 1), f"subm{s + 1}"))
            skips.append(c_out)
        for s in range(stages):
            level = stages - s
            c_in, c_out = widths[stages + s], widths[stages + s + 1]
            self.up.append(
                spconv.SparseSequential(
                    spconv.SparseInverseConv3d(c_in, c_out, 2, f"spconv{level - 1}", bias=False),
                    NORM(c_out),
                    nn.ReLU(),
                )
            )
            joined = [c_out + skips[level - 1], *[c_out] * depths[stages + s]]
            self.dec.append(self._blocks(spconv, joined, f"subm{level - 1}"))
        self.final = spconv.SubMConv3d(widths[-1], classes, kernel_size=1, padding=1, bias=True)

    @staticmethod
    def _blocks(spconv: Any, widths: list[int], key: str) -> nn.Module:
        pairs = itertools.pairwise(widths)
        return spconv.SparseSequential(*(_residual(spconv)(*pair, key) for pair in pairs))

    def forward(self, features: Tensor, indices: Tensor, shape: Any, batch: int) -> Tensor:
        """Return ``[N, classes]``."""
        x = self.conv_input(self.tensor(features, indices, shape, batch))
        skips = []
        for down, enc in zip(self.down, self.enc, strict=True):
            skips.append(x)
            x = enc(down(x))
        for up, dec in zip(self.up, self.dec, strict=True):
            skip = skips.pop()
            x = up(x)
            x = x.replace_feature(torch.cat((x.features, skip.features), dim=1))
            x = dec(x)
        return self.final(x).features


NETS: dict[str, Any] = {
    "VoxelBackBone8x": VoxelBackbone,
    "SECOND": SecondMiddle,
    "SpUNet": SparseUNet,
}
