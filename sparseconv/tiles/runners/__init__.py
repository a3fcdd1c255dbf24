"""Where tiles run.

here: what a runner is, and this process. pool: processes of this machine. dask: a Dask cluster.
ray: a Ray cluster.
"""

from sparseconv.tiles.runners.dask import Dask as Dask
from sparseconv.tiles.runners.here import Here as Here
from sparseconv.tiles.runners.here import Runner as Runner
from sparseconv.tiles.runners.pool import Pool as Pool
from sparseconv.tiles.runners.ray import Ray as Ray
