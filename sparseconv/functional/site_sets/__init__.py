"""Functions that change which sites are active, or where they lie.

sets: union, intersection, difference, prune, crop. batches: cat and collate. layout: pad, pixel
shuffle. axes: coordinates moved. shapes: permute, squeeze, flatten and others of a dense tensor.
permuted: a tensor whose channels are not axis 1. mirrors: flips and turns. parts: cells of an axis.
broadcast: operands of extent 1. resample: interpolation to another extent. ends: from dense to
sparse and back.
"""
