"""Networks that people ask for by name, in plain PyTorch and :mod:`sparseconv.nn`."""

from sparseconv.models.unet import UNet as UNet
