"""Modules that PyTorch lacks; everything else is PyTorch's own, on a SparseTensor.

conv: submanifold, inverse, over four axes. partial: over the valid values. deform: with moved
kernel cells. fused: with what follows, for inference. local: unshared weights. pool, norm: over
four axes. ends: from dense to sparse and back.
"""

from typing import Any as _Any

from sparseconv.core.foreign_names import LAYERS as _LAYERS
from sparseconv.core.foreign_names import no_attribute as _no_attribute
from sparseconv.nn.conv import Conv4d as Conv4d
from sparseconv.nn.conv import InverseConv1d as InverseConv1d
from sparseconv.nn.conv import InverseConv2d as InverseConv2d
from sparseconv.nn.conv import InverseConv3d as InverseConv3d
from sparseconv.nn.conv import InverseConv4d as InverseConv4d
from sparseconv.nn.conv import SubmConv1d as SubmConv1d
from sparseconv.nn.conv import SubmConv2d as SubmConv2d
from sparseconv.nn.conv import SubmConv3d as SubmConv3d
from sparseconv.nn.conv import SubmConv4d as SubmConv4d
from sparseconv.nn.deform import DeformConv1d as DeformConv1d
from sparseconv.nn.deform import DeformConv2d as DeformConv2d
from sparseconv.nn.deform import DeformConv3d as DeformConv3d
from sparseconv.nn.ends import ToDense as ToDense
from sparseconv.nn.ends import ToSites as ToSites
from sparseconv.nn.fused import FusedConvolution as FusedConvolution
from sparseconv.nn.local import LocallyConnected1d as LocallyConnected1d
from sparseconv.nn.local import LocallyConnected2d as LocallyConnected2d
from sparseconv.nn.norm import BatchNorm4d as BatchNorm4d
from sparseconv.nn.norm import SyncBatchNorm as SyncBatchNorm
from sparseconv.nn.partial import PartialAvgPool as PartialAvgPool
from sparseconv.nn.partial import PartialConv1d as PartialConv1d
from sparseconv.nn.partial import PartialConv2d as PartialConv2d
from sparseconv.nn.partial import PartialConv3d as PartialConv3d
from sparseconv.nn.partial import PartialConvTranspose1d as PartialConvTranspose1d
from sparseconv.nn.partial import PartialConvTranspose2d as PartialConvTranspose2d
from sparseconv.nn.partial import PartialConvTranspose3d as PartialConvTranspose3d
from sparseconv.nn.partial import PartialMaxPool as PartialMaxPool
from sparseconv.nn.partial import SubmPartialConv1d as SubmPartialConv1d
from sparseconv.nn.partial import SubmPartialConv2d as SubmPartialConv2d
from sparseconv.nn.partial import SubmPartialConv3d as SubmPartialConv3d
from sparseconv.nn.pool import AvgPool4d as AvgPool4d
from sparseconv.nn.pool import GlobalAvgPool as GlobalAvgPool
from sparseconv.nn.pool import GlobalMaxPool as GlobalMaxPool
from sparseconv.nn.pool import MaxPool4d as MaxPool4d


def __getattr__(name: str) -> _Any:
    """Raise with the name to use, where ``name`` is another library's."""
    raise _no_attribute(__name__, name, _LAYERS)
