"""The plain engine: PyTorch's own operators, on any device."""
