"""Every number that is reported, once: its key in files, what a reader calls it, its unit."""

from __future__ import annotations

from typing import NamedTuple


class Quantity(NamedTuple):
    """What a reader calls a number, and its unit; empty where it has none."""

    label: str
    unit: str


#: How keys end -> unit.
_UNITS = {
    "_percent": "%",
    "_mev_per_atom": "meV/atom",
    "_mev_per_angstrom": "meV/angstrom",
    "_kcal_per_mol": "kcal/mol",
    "_kcal_per_mol_angstrom": "kcal/mol/angstrom",
    "_mev": "meV",
    "_ev": "eV",
    "_e_bohr": "e bohr",
    "_e": "e",
    "_debye": "D",
    "_seconds": "s",
    "_gpa": "GPa",
    "_mebibytes": "MiB",
    "_lattice_constants": "lattice constants",
    "_atomic_volumes": "atomic volumes",
}
#: Key, label, and the unit if the key does not tell; tables show them in this order.
_TABLE = """
method | method
name | structure
round | round
structures | training structures
networks | networks
mean_candidate_uncertainty_mev_per_atom | mean candidate uncertainty
nmape_percent | density error (NMAPE)
density_uncertainty_percent | density uncertainty
nmape_superposed_atoms_percent | NMAPE of superposed atoms
points_outside_training_percent | points unlike those of the training
density_error_near_nuclei_percent | density error within 1 bohr of nuclei
charge_error_before_normalisation_percent | charge error before normalisation
charge_error_by_quadrature_e | charge error by quadrature
dipole_error_before_normalisation_e_bohr | dipole error before normalisation
dipole_error_debye | dipole error
dipole_error_one_kohn_sham_step_debye | dipole error after one Kohn-Sham step
energy_mean_error_mev_per_atom | energy, mean error
energy_sd_mev_per_atom | energy, s.d. of errors
energy_error_mev_per_atom | energy error
energy_uncertainty_mev_per_atom | energy uncertainty
energy_error_functional_mev_per_atom | energy error, functional at the predicted density
energy_uncertainty_functional_mev_per_atom | energy uncertainty, functional at the predicted density
energy_error_functional_one_step_mev_per_atom | energy error, functional after one minimisation step
energy_error_energy_density_mev_per_atom | energy error, sum of energy densities
energy_uncertainty_energy_density_mev_per_atom | energy uncertainty, sum of energy densities
force_mae_mev_per_angstrom | force MAE
force_mae_functional_mev_per_angstrom | force MAE, derivative of the functional
force_uncertainty_functional_mev_per_angstrom | force uncertainty, derivative of the functional
force_mae_functional_one_step_mev_per_angstrom | force MAE, functional after one minimisation step
force_mae_hellmann_feynman_mev_per_angstrom | force MAE, Hellmann-Feynman
force_uncertainty_hellmann_feynman_mev_per_angstrom | force uncertainty, Hellmann-Feynman
force_spread_reference_mev_per_angstrom | spread of reference forces
energy_error_kcal_per_mol | energy error
energy_uncertainty_kcal_per_mol | energy uncertainty
energy_error_harris_kcal_per_mol | energy error, Harris
energy_error_all_fields_kcal_per_mol | energy error, quadrature of all predicted fields
force_mae_kcal_per_mol_angstrom | force MAE
force_mae_hellmann_feynman_kcal_per_mol_angstrom | force MAE, Hellmann-Feynman of the prediction
force_rms_reference_kcal_per_mol_angstrom | root mean square of reference forces
pulay_largest_kcal_per_mol_angstrom | Pulay difference of the reference, largest
pulay_heavy_atoms_kcal_per_mol_angstrom | Pulay difference of the reference, mean of heavy atoms
pulay_hydrogen_kcal_per_mol_angstrom | Pulay difference of the reference, mean of hydrogen
cycles_from_minao | self-consistent cycles from minao
cycles_from_prediction | self-consistent cycles from the prediction
kinetic_energy_density_error_percent | kinetic energy density error
xc_energy_density_error_percent | xc energy density error
electrostatic_energy_density_error_percent | electrostatic energy density error
kinetic_difference_error_percent | kinetic energy density error, of what is learned
xc_difference_error_percent | xc energy density error, of what is learned
stress_error_gpa | stress error
evaluations | energy evaluations
call_seconds | energy and forces
cells | cells
failures | not converged
rms_sigma | error over its estimate, rms
within_1_sigma_percent | within one sigma
within_2_sigma_percent | within two sigma
values | values
labels | taught
points | reference points
n_points | points
force_error | force error | meV/angstrom
force_error_spread | spread over seeds | meV/angstrom
energy_error | energy error | meV/atom
energy_error_spread | spread over seeds | meV/atom
seconds_per_epoch | time per epoch | s
epochs | epochs
preparation_seconds | features and derivatives
stored_mebibytes | stored
prediction_seconds | energy and forces
net_force | net force | meV/angstrom
egg_box | egg-box | meV/atom
defect | defect
formation_energy_ev | formation energy
relaxation_energy_ev | relaxation energy
relaxation_volume_atomic_volumes | relaxation volume
strain_norm | strain norm
distance_lattice_constants | distance
r3_strain | r^3 times strain | lattice constants^3
model | model
quantity | quantity
slope | slope
half_width_95 | 95 % half width
theory | theory
basis | basis
observations | observations
size_lattice_constants | L
geometry | geometry error | strain
largest | largest | strain
formation_energy_mev | formation energy
message | note
"""


#: By key, such as ``nmape_percent``.
QUANTITIES: dict[str, Quantity] = {}
for _key, _label, *_unit in (line.split(" | ") for line in _TABLE.strip().splitlines()):
    _units = [*_unit, *(unit for ending, unit in _UNITS.items() if _key.endswith(ending)), ""]
    QUANTITIES[_key] = Quantity(_label, _units[0])
