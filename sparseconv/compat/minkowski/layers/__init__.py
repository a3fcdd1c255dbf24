"""The modules of MinkowskiEngine.

windows: what those with a kernel share. convolution: regular, transposed, generative, channelwise.
pooling: windows and whole samples. broadcast: a row per sample at all its sites. sets: pruning,
union, interpolation. norm: statistics. values: what acts on each value, and the base of all
modules. stacks: several tensors, dense ones.
"""
