"""Functions of the values at each site, and statistics over them.

pointwise: each value alone, operands row by row. arithmetic: plus, minus, times, divided.
operators: Python's other operators, writing in place. dropout: of values and channels. channels:
over the channels of each site. reduce: sums, means and norms. norm: normalisation. sync_norm: by
the statistics of all processes. rows: operands brought to the rows of a tensor. views: where the
channels are not axis 1. plain: plain tensors to multiply with.
"""
