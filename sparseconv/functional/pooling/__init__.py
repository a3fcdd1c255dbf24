"""Pooling: windows, whole samples, partial."""
