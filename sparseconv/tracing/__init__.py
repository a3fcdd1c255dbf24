"""What a compiled or exported graph sees instead of sites: handles and custom operators.

sites: stand-ins. operators: products, windows, unions. samples, sampling, norm: their own
operators.
"""
