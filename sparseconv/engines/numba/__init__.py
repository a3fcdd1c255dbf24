"""The CPU engine: Numba kernels, in parallel, the same bits twice.

engine: the functions of the contract by name. products, windows, rows: what they compute.
rulebooks, keys: pairs and sites. machine: compiler, threads, vectors.
"""
