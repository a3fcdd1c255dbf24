"""Sums, statistics and affine functions of rows."""
