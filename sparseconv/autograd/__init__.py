"""The autograd rules: two products, sums over segments, windows, the deformable product.

The engine is chosen once, in the forward pass, and used for every derivative.

rule: what every rule shares. products: convolutions. windows: pooling. sampling: the deformable
product. segments: rows that share a site. samples: sums over each sample. normalise: by statistics.
elementwise: the functions between layers. padded: samples
side by side. dense: rows into a dense tensor and back.
"""
