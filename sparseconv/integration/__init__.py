"""What PyTorch's machinery around a network needs to know of our tensors.

trees: what is inside a SparseTensor. saving: what ``torch.load`` may make. batches: what a
DataLoader collates. modules: what asks no tensor for its meaning, and has to. onnx: what stands for
our operators in an ONNX graph. voxels: points to voxels in a compiled graph.

Nobody imports this folder but the root of the package, which loads it behind the functions.
"""

from sparseconv.integration import batches, modules, onnx, saving, trees, voxels

trees.register()
saving.register()
batches.register()
modules.register()
onnx.register()
voxels.register()
