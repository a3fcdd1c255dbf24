"""Functions that change which sites are active, or where they lie.

sets: union, intersection, difference, prune, crop. batches: cat and collate. layout: flatten, pad,
pixel shuffle. resample: interpolation to another extent. ends: from dense to sparse and back.
"""
