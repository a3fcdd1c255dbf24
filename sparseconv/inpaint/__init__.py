"""Filling holes in images.

masks: random holes. fill: the methods. images: files. command: `sparseconv inpaint`.
"""
