"""Atoms of their own: spherical and pseudo atoms, Gaussians on atoms, charges near them."""
