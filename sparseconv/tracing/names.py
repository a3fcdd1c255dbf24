"""The operators by name; the package registers them when it is loaded."""

from __future__ import annotations

from typing import Any

import torch


def operators() -> Any:
    """Return the namespace of the custom operators."""
    return torch.ops.sparseconv
