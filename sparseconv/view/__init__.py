"""Points and voxels that one can see: ``sc.view(x)``.

show: the view. scene: what it shows. colors: of classes and values. page: one HTML page. picture:
by Open3D.
"""

import sys
from types import ModuleType
from typing import Any

from sparseconv.view.show import View as View
from sparseconv.view.show import view as _view

__all__ = ["View"]


class _Callable(ModuleType):
    """A module that is also the function: ``sc.view(x)``, and ``sc.view.View`` is its result."""

    def __call__(self, *args: Any, **kwargs: Any) -> View:
        """Show points or voxels; see :func:`sparseconv.view.show.view`."""
        return _view(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
