"""Models of crystals: fields at the points of a mesh, energies by the parent functional."""
