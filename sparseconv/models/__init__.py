"""Networks that people ask for by name, in plain PyTorch and :mod:`sparseconv.nn`.

<<<<<<< HEAD
lenet: LeNet-5. unet: a label per site. partial_unet: images with holes. point_labeller:
a label per point of a scan.
=======
minkunet, unet: a label per site. resnet: a label per sample. detection: encoders of detectors.
partial_unet: images with holes. lenet: LeNet-5. residual: the blocks of MinkUNet and ResNet.
>>>>>>> 6bc71a2 (Add MinkUNet, ResNet and the encoders of SECOND and VoxelNeXt by name)
"""

from sparseconv.models.detection import SECONDEncoder as SECONDEncoder
from sparseconv.models.detection import VoxelNeXtEncoder as VoxelNeXtEncoder
from sparseconv.models.lenet import LeNet5 as LeNet5
from sparseconv.models.minkunet import MinkUNet as MinkUNet
from sparseconv.models.partial_unet import PartialUNet as PartialUNet
from sparseconv.models.resnet import ResNet as ResNet
from sparseconv.models.unet import UNet as UNet
