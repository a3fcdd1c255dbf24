"""The modules of spconv.

containers: what holds others, and functions of each value. convolution: the base of all
convolutions. named: convolutions by name. pairs: the sites and pairs of a layer, and `indice_key`.
pooling: windows and whole samples. tables: several tensors, or several modules.
"""
