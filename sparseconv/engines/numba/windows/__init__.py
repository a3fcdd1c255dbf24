"""Sums and maxima over windows."""
