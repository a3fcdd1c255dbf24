"""Export to ONNX: what stands in an ONNX graph for our operators, of standard operators alone.

functions: the ONNX functions. site_sets: sets of sites in the graph. translations: one for each
operator. Only :func:`torch.onnx.export` loads these three, which need onnxscript.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from sparseconv.core.handles import DOORS


def register() -> None:
    """Let exports find the translations."""
    DOORS.translate = _translate


def _translate(registry: Any) -> None:
    """Give an export's table our operators, unless it has them."""
    table = importlib.import_module("sparseconv.integration.onnx.translations").TRANSLATIONS
    for name, function in table.items():
        operator = getattr(torch.ops.sparseconv, name).default
        if not registry.is_registered(operator):
            registry.register_op(operator, function)
