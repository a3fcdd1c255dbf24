"""The active sites of a batch: coordinates, index, cached rulebooks.

sites: `Sites` and its caches. record: what never changes, and the site law. coordinates: checks of
what a user gave. samples: the rows of each sample. taps: where deformable kernels sample. places:
where sites lie in the world. plan: rulebooks to build ahead. batches: some samples of a set, and
sets put into one batch. borders: sites repeated beyond the ends of an axis. roomy: what stands for
any sites in a captured graph.
"""
