"""Sparse convolution in PyTorch: plain networks on point clouds and images with holes."""

from sparseconv import engines as engines
from sparseconv import functional as functional
from sparseconv import io as io
from sparseconv import models as models
from sparseconv import nn as nn
from sparseconv import reference as reference
from sparseconv import tools as tools
from sparseconv.engines import engine as engine
from sparseconv.errors import SparseConvError as SparseConvError
from sparseconv.errors import SparseConvNotImplementedError as SparseConvNotImplementedError
from sparseconv.errors import SparseConvTypeError as SparseConvTypeError
from sparseconv.errors import SparseConvValueError as SparseConvValueError
from sparseconv.functional import cat as cat
from sparseconv.functional import collate as collate
from sparseconv.tensor import SparseTensor as SparseTensor
from sparseconv.version import __version__ as __version__
from sparseconv.voxelize import PointMap as PointMap
from sparseconv.voxelize import voxelize as voxelize
