"""What each position inside a model reads of its input, worked out without data.

receptive_field, reach: the functions. stand_in: the tensor without data. intervals: what one axis
reads. rules: the functions' rules. windows: those with a window. shapes: those that move values.
"""
