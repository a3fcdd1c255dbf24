"""Filling holes in images.

masks: random holes. fill: by averages and networks. methods: other ways, tiles, and which is best.
images: files. deep_colour: colours of 16 bits. command: `sparseconv inpaint`.
"""
