"""Other libraries' names, thin over ours: their models run unchanged, with the same numbers.

checkpoints: weights of other libraries. namespaces: `install` and `uninstall`, which let `import
spconv` find this package. spconv: the names of spconv 1.x and 2.x.
"""

from sparseconv.compat.namespaces import install, uninstall

__all__ = ["install", "uninstall"]
