"""Modules that PyTorch lacks; everything else is PyTorch's own, on a SparseTensor."""

from sparseconv.nn.conv import Conv4d as Conv4d
from sparseconv.nn.conv import InverseConv1d as InverseConv1d
from sparseconv.nn.conv import InverseConv2d as InverseConv2d
from sparseconv.nn.conv import InverseConv3d as InverseConv3d
from sparseconv.nn.conv import InverseConv4d as InverseConv4d
from sparseconv.nn.conv import SubmConv1d as SubmConv1d
from sparseconv.nn.conv import SubmConv2d as SubmConv2d
from sparseconv.nn.conv import SubmConv3d as SubmConv3d
from sparseconv.nn.conv import SubmConv4d as SubmConv4d
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
