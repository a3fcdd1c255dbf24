"""Samples and points as a data loader hands them on.

collate: samples made a batch. quantize: points made voxels.
"""
