"""How good labels are, by torchmetrics (extra ``datasets``)."""

from __future__ import annotations

import importlib
from typing import Any

from sparseconv.errors import SparseConvError
from sparseconv.io.labels import NO_LABEL


def mean_iou(num_classes: int, average: str = "macro") -> Any:
    """Return a torchmetrics metric: intersection over union, points without label left out.

    Args:
        num_classes: number of classes.
        average: ``"macro"`` for the mean of all classes, ``"none"`` for one number a class.

    Raises:
        SparseConvError: torchmetrics is not installed.

    Example:
        >>> import torch
        >>> score = mean_iou(2)
        >>> score.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, -1]))
        >>> score.compute()
        tensor(1.)
    """
    try:
        library = importlib.import_module("torchmetrics.classification")
    except ImportError as error:
        raise SparseConvError(
            "this needs torchmetrics, which is not installed: pip install torchmetrics"
        ) from error
    return library.MulticlassJaccardIndex(num_classes, average=average, ignore_index=NO_LABEL)
