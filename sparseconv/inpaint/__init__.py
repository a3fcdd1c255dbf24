"""Filling holes in images.

masks: random holes. fill: by averages and networks. methods: other ways, tiles, and which is best.
images: files. command: `sparseconv inpaint`.
"""
