"""Values that everything is made of: no engine, no tensor class.

arguments: checks, and the text of their errors. dtypes: which dtypes there are, and sums in them.
geometry: the window of a layer. grid: where sites lie in the world. index: one packed key a site,
keys in order, rows that share a site. rulebook: pairs and taps. dispatch: the table from functions
to their sparse meaning. remember: how a cache is filled. handles: numbers of living sites, and the
doors of graphs. private_torch: PyTorch's private names. foreign_names: other libraries' names, and
what to use.
"""
