"""Networks that people ask for by name, in plain PyTorch and :mod:`sparseconv.nn`.

minkunet, unet: a label per site. point_labeller: a label per point of a scan. likeness: whether a
scan is like those of training. resnet: a label per sample. detection: encoders of detectors.
partial_unet: images with holes. lenet: LeNet-5. residual: the blocks of MinkUNet and ResNet.
"""

from sparseconv.models.detection import SECONDEncoder as SECONDEncoder
from sparseconv.models.detection import VoxelNeXtEncoder as VoxelNeXtEncoder
from sparseconv.models.lenet import LeNet5 as LeNet5
from sparseconv.models.minkunet import MinkUNet as MinkUNet
from sparseconv.models.partial_unet import PartialUNet as PartialUNet
from sparseconv.models.resnet import ResNet as ResNet
from sparseconv.models.unet import UNet as UNet
