"""Other libraries' names, thin over ours: their models run unchanged, with the same numbers.

checkpoints: weights of other libraries. native: `to_native`, a model of torch's and our modules.
namespaces: `install` and `uninstall`, which let `import spconv` find this package. paths: modules
under others' names. place: where rows lie. spconv: the names of spconv 1.x and 2.x. minkowski: the
names of MinkowskiEngine. torchsparse: the names of TorchSparse 1.4 and 2.x.
"""

from sparseconv.compat.namespaces import install, uninstall
from sparseconv.compat.native import to_native

__all__ = ["install", "to_native", "uninstall"]
