"""PyTorch's private names, each with what happens where a version of PyTorch lacks it."""

from __future__ import annotations

from typing import Any

import torch


def dynamic_size() -> Any:
    """Return a size that a graph learns when it runs; called by a fake kernel.

    ``new_dynamic_size`` refuses where ``torch.compile`` was not asked for one graph, though a size
    of that kind is no obstacle; PyTorch's own operators of device meshes go the same way. Where the
    names are missing, plain ``torch.compile`` makes several graphs and all else is the same.
    """
    context = torch.library.get_ctx()
    shapes = getattr(context, "_shape_env", None)
    allocate = getattr(torch._library.fake_impl, "allocate_size", None)
    if shapes is None or allocate is None:
        return context.new_dynamic_size()
    return allocate(shapes)
