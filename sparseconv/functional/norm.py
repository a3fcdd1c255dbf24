"""Normalisation: statistics run over active sites only."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sparseconv.dispatch import implements
from sparseconv.errors import SparseConvValueError
from sparseconv.tensor import SparseTensor


@implements(F.batch_norm)
def _sparse_batch_norm(
    input: SparseTensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> SparseTensor:
    """Batch normalisation over the active sites of the whole batch.

    With fewer than two sites there is no variance to learn from: in training the output is then
    the bias (an empty output without any site), and the running statistics stay as they are.
    """
    for name, value in (("running_mean", running_mean), ("weight", weight), ("bias", bias)):
        if value is not None and value.shape != (input.channels,):
            raise SparseConvValueError(
                f"{name}: the layer normalises {value.shape[0]} channels, the input has "
                f"{input.channels}"
            )
    if training and input.num_sites < 2:
        centred = input.features - input.features.detach()
        running_mean = running_var = None
        scaled = centred if weight is None else centred * weight
        return input.replace(scaled if bias is None else scaled + bias)
    features = F.batch_norm(
        input.features, running_mean, running_var, weight, bias, training, momentum, eps
    )
    return input.replace(features)
