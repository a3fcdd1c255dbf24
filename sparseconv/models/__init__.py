"""Networks that people ask for by name, in plain PyTorch and :mod:`sparseconv.nn`."""

from sparseconv.models.lenet import LeNet5 as LeNet5
from sparseconv.models.partial_unet import PartialUNet as PartialUNet
from sparseconv.models.unet import UNet as UNet
