"""The autograd rules: two products, sums over segments, windows, the deformable product.

The engine is chosen once, in the forward pass, and used for every derivative.
"""
