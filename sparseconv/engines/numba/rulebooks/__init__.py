"""Pairs by merging keys, and the order in which products walk them."""
