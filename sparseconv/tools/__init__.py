"""Tools around networks.

conversion: submanifold convolutions for "same" ones. fusion: a network for inference. graphs:
inference by a captured graph. fields: receptive fields. planning: rulebooks to build ahead. report:
a table of the layers. streams: stages that work at the same time, sweeps as 4D tensors. watching:
the modules as they run. warmup: the kernels compiled ahead. voxel_table: which voxels to take.
"""

from sparseconv.tools.conversion import submanifold as submanifold
from sparseconv.tools.fields.reach import Reach as Reach
from sparseconv.tools.fields.reach import reach as reach
from sparseconv.tools.fields.receptive_field import ReceptiveField as ReceptiveField
from sparseconv.tools.fields.receptive_field import receptive_field as receptive_field
from sparseconv.tools.fusion import optimize as optimize
from sparseconv.tools.graphs import CapturedModel as CapturedModel
from sparseconv.tools.graphs import capture as capture
from sparseconv.tools.planning import plan as plan
from sparseconv.tools.report import Summary as Summary
from sparseconv.tools.report import SummaryRow as SummaryRow
from sparseconv.tools.report import summary as summary
from sparseconv.tools.streams import pipeline as pipeline
from sparseconv.tools.streams import sweeps as sweeps
from sparseconv.tools.voxel_table import VoxelSize as VoxelSize
from sparseconv.tools.voxel_table import voxel_sizes as voxel_sizes
from sparseconv.tools.warmup import warm_up as warm_up
