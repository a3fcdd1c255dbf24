"""The names of spconv: `sparseconv.compat.spconv.pytorch` is what `spconv.pytorch` is there.

place: where rows lie. tensor: the tensor. namespace: the paths of spconv's modules. pytorch: all
names of `spconv.pytorch`.
"""

from sparseconv.compat.spconv import pytorch

__version__ = pytorch.__version__

__all__ = ["pytorch"]
