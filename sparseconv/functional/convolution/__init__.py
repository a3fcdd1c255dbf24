"""Convolutions: regular, submanifold, inverse, partial, deformable, locally connected."""
