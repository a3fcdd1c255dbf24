"""What ``torchsparse.nn.functional`` has.

conv: the convolution. config: choices. points: hashes, look-ups, and the ways between points and
voxels. levels: coordinates of the next stride, cropping. values: what acts on values, pooling.
"""
