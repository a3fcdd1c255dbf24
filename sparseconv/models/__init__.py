"""Networks that people ask for by name, in plain PyTorch and :mod:`sparseconv.nn`.

lenet: LeNet-5. unet: a label per site. partial_unet: images with holes. point_labeller:
a label per point of a scan.
"""

from sparseconv.models.lenet import LeNet5 as LeNet5
from sparseconv.models.partial_unet import PartialUNet as PartialUNet
from sparseconv.models.unet import UNet as UNet
