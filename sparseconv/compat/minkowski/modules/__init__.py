"""Blocks of residual networks.

resnet_block: the plain ones. senet_block: with a gate for each channel.
"""

from sparseconv.compat.minkowski.modules import resnet_block, senet_block

__all__ = ["resnet_block", "senet_block"]
