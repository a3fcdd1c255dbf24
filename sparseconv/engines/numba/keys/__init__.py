"""Packed keys: index, look-ups, the site law."""
