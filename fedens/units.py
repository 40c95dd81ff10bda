"""Units and their conversion, in one place.

Inside fedens everything is in Hartree atomic units. ASE, files and the command line
speak eV and angstrom. The factors are ASE's own (CODATA 2014), so that a round trip
through ASE is exact.
"""

from __future__ import annotations

from ase import units as _ase

HARTREE_IN_EV: float = _ase.Hartree
BOHR_IN_ANGSTROM: float = _ase.Bohr
HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM: float = HARTREE_IN_EV / BOHR_IN_ANGSTROM
HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3: float = HARTREE_IN_EV / BOHR_IN_ANGSTROM**3
HARTREE_PER_BOHR3_IN_GPA: float = HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3 / _ase.GPa
#: Of one atomic mass unit, one kelvin and one wave number of 1/cm.
ATOMIC_MASS_IN_ELECTRON_MASSES: float = _ase._amu / _ase._me
KELVIN_IN_HARTREE: float = _ase.kB / HARTREE_IN_EV
WAVE_NUMBER_IN_HARTREE: float = _ase.invcm / HARTREE_IN_EV
HARTREE_IN_KCAL_PER_MOL: float = HARTREE_IN_EV / (_ase.kcal / _ase.mol)
HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM: float = HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
#: Of one elementary charge times bohr.
ELECTRON_BOHR_IN_DEBYE: float = _ase.Bohr / _ase.Debye
HARTREE_IN_MEV: float = 1000.0 * HARTREE_IN_EV
HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM: float = 1000.0 * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
