"""Sums, statistics and elementwise functions of rows."""
