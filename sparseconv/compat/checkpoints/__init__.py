"""Everyone's checkpoints: weights of other libraries in the layout of a model's own layers.

layers: what a layer's weight depends on. layouts: how each library lays it out. names: which tensor
of a checkpoint belongs to which of a model. report: what became of each. load: the functions.
"""

from sparseconv.compat.checkpoints.load import convert_weights, load_checkpoint
from sparseconv.compat.checkpoints.report import CheckpointReport

__all__ = ["CheckpointReport", "convert_weights", "load_checkpoint"]
