"""Values that everything is made of: no engine, no tensor class.

geometry: the window of a layer. packing: one int64 key a site. rulebook: pairs and taps.
dispatch: the table from functions to their sparse meaning. transforms: what caches stay outside of.
"""
