"""Functions that change which sites are active, or where they lie."""
