"""Functions of the values at each site, and statistics over them."""
