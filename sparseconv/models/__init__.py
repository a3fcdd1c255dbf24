"""Networks that people ask for by name, in plain PyTorch and :mod:`sparseconv.nn`."""

from sparseconv.models.partial_unet import PartialUNet as PartialUNet
from sparseconv.models.unet import UNet as UNet
