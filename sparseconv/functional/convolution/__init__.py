"""Convolutions: regular, submanifold, inverse, partial, deformable, locally connected.

conv: torch's own, submanifold, and the inverse. fused: with bias, sum and
ReLU in one pass. partial, masks: over the valid values. masked: a tensor and its mask as one.
deform: with moved kernel cells. local: unshared weights. dense: on dense tensors, by geometry.
products: check, plan and product. row_pairs: which rows belong together. table: all of them by
name.
"""
