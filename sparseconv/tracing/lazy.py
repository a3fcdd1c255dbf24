"""The operators, defined when a graph first asks: that takes longer than all of the import."""

from __future__ import annotations

from typing import Any

import torch


def operators() -> Any:
    """Return the namespace of the custom operators."""
    import sparseconv.tracing.operators  # a graph follows a statement, not a function of importlib
    import sparseconv.tracing.samples
    import sparseconv.tracing.sampling

    return torch.ops.sparseconv
