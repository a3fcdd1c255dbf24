"""Pooling: windows, whole samples, partial.

pool: max, average and p-norm over windows. geometry: the windows. dense: over four axes of a dense
tensor. global_pool: over all active sites. on_sites: at sites of the caller's choice. partial: over
the valid values.
"""
