"""The plain engine: PyTorch's own operators, on any device.

engine: the functions of the contract by name. keys, products, deform, windows, rows: the functions.
capacity: layouts of maps in memory of one size.
"""
