"""The modules of TorchSparse.

convolution: Conv3d. values: norms, activations, pooling, cropping.
"""
