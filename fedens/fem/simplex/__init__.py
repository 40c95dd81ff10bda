"""Tetrahedra and hexahedra, refined at nuclei."""

from fedens.fem.simplex.space import DEFAULT_MARGIN, SimplexSpace

__all__ = ["DEFAULT_MARGIN", "SimplexSpace"]
