"""LeNet-5: convolution and pooling in turns, for 32 by 32 images."""

from __future__ import annotations

import torch
from torch import Tensor


class LeNet5(torch.nn.Module):
    """LeNet-5 with its layers by their names in the paper: C1, S2, C3, S4, C5, F6 and the output.

    5 by 5 convolutions, 2 by 2 average pooling, tanh. As is usual today, C3 sees all maps of S2,
    pooling has no weights of its own, and the output layer is linear. Every layer is PyTorch's,
    so a SparseTensor, with ink pixels alone, runs through the same weights: what is not active
    then counts 0 in every layer, where the dense network has a bias.

    Args:
        in_channels: channels of the image.
        num_classes: number of scores.

    Shape:
        Input ``[B, in_channels, 32, 32]``, sparse or dense; output ``[B, num_classes]``.

    Source:
        LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
        recognition", section II.B.

    Example:
        >>> import torch
        >>> from sparseconv.models import LeNet5
        >>> network = LeNet5()
        >>> network(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(parameter.numel() for parameter in network.parameters())
        61706
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.c1 = torch.nn.Conv2d(in_channels, 6, 5)
        self.s2 = torch.nn.AvgPool2d(2)
        self.c3 = torch.nn.Conv2d(6, 16, 5)
        self.s4 = torch.nn.AvgPool2d(2)
        self.c5 = torch.nn.Conv2d(16, 120, 5)
        self.f6 = torch.nn.Linear(120, 84)
        self.output = torch.nn.Linear(84, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Return one score per class, ``[B, num_classes]``.

        Args:
            input: ``[B, in_channels, 32, 32]``, a SparseTensor or dense.
        """
        x = self.s2(torch.tanh(self.c1(input)))
        x = self.s4(torch.tanh(self.c3(x)))
        x = torch.flatten(torch.tanh(self.c5(x)), 1)
        scores: Tensor = self.output(torch.tanh(self.f6(x)))
        return scores
