"""SparseTensor: features on active sites, in the place of a dense tensor.

methods: the methods of a dense tensor, each the torch function behind it. checks: what features,
masks and indices must be. base: features on sites, and what both say of the dense tensor.
arithmetic: operators. conversions: dtypes and devices. forms: dense, padded and other forms.
selection: samples and channels. sparse_tensor: the class.
"""

from sparseconv.tensor.methods import Methods
from sparseconv.tensor.sparse_tensor import SparseTensor, tensor_on_sites

__all__ = ["Methods", "SparseTensor", "tensor_on_sites"]
