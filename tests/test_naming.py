"""Atoms as pictures show them: moved into their box."""

import numpy as np

from fedens.output.naming import inside_box
from fedens.structure import Structure


def test_atoms_are_moved_into_a_box_that_starts_anywhere():
    cell, origin = np.array([4.0, 5.0, 6.0]), np.array([-1.0, 2.0, 3.0])
    structure = Structure(["Al", "O"], [[-1.5, 2.5, 3.1], [9.0, -4.0, 8.9]], cell=cell, pbc=True)
    moved = inside_box(structure, origin)
    np.testing.assert_allclose(moved, [[2.5, 2.5, 3.1], [1.0, 6.0, 8.9]])
    isolated = Structure(["Al"], [[-1.5, 2.5, 3.1]])
    np.testing.assert_array_equal(inside_box(isolated, origin), isolated.positions)
