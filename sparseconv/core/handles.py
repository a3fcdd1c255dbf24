"""Living site sets by number, and the doors by which sites and rules enter a compiled graph.

A graph holds tensors, and a site set is an object: a graph knows it by its number and looks it up
when it runs. :mod:`sparseconv.tracing` and :mod:`sparseconv.integration` fill :data:`DOORS` when
the package is loaded.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

LIVING: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
next_number = itertools.count().__next__


class Doors:
    """What takes the place of sites and rules while a graph is traced.

    Attributes:
        view: takes sites, returns what stands for them in the graph.
        operators: what runs instead of a rule's function, by the function's name.
        translate: gives the table of an export to ONNX what stands for the operators there.
    """

    view: Callable[[Any], Any]
    operators: dict[str, Callable[..., Any]]
    translate: Callable[[Any], None]


DOORS = Doors()
