"""A model over a cloud that need not fit into memory, tile by tile, with the bits of one run.

job: the function and its result. census: what lies where. plan: which tiles. budget: how large.
sources: clouds by parts. partition: points on disk, tile by tile. run: one tile. manifest: what is
done. output: results in the source's order. runners: where tiles run.
"""

from sparseconv.tiles.job import Tiled as Tiled
from sparseconv.tiles.job import tiled as tiled
from sparseconv.tiles.plan import Plan as Plan
from sparseconv.tiles.run import Done as Done
from sparseconv.tiles.run import Task as Task
