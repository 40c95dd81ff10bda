"""What a model of molecules is trained on: fields of a sample as numbers of an atomic basis.

The error of a fitted field f, sum over points of w |f - c phi|^2 / (n_0 + e) with the superposed
atoms' density n_0, is a quadratic form in its coefficients c: c G c - 2 b c + constant. G and b are
made once from a sample of the points, drawn where the density is; training then needs no points.
The weight 1/(n_0 + e) counts a relative error alike near nuclei and in the tails, as an error of
the whole density, which is a sum of |f - c phi|, nearly does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.atoms.spherical import SphericalAtom, find_atom, pair_energy, superposed_fields
from fedens.data.sample import Sample
from fedens.errors import ModelError
from fedens.features.gmp import GMP
from fedens.fields import LOCAL_FIELDS
from fedens.learning.committee import left_out
from fedens.models.points.data import jacobian, without_closed
from fedens.structure import Structure

#: The e above, electron/bohr^3.
_TAIL = 1e-2
#: Share of the sampled points that are drawn anywhere in the molecule.
_ANYWHERE, _MOLECULE = 0.1, 1e-6
#: Functions of an atom are dependent when G's eigenvalues, single precision, have such a ratio.
_DEPENDENT = 1e-8
#: A member leaves out one molecule of so many, or fewer: they are dear, and each counts.
_SHARE = 6
#: Matrices G of all samples may take this much memory, bytes.
MAX_BYTES = 2**33


@dataclass(frozen=True, eq=False)
class MoleculeData:
    """What is learned from one molecule; Hartree atomic units.

    Attributes:
        structure: the atoms.
        moments: what each atom sees, (n_atoms, n_components).
        moments_by_position: derivatives, (n_atoms, n_components, 3 n_atoms).
        gram: G (n_functions, n_functions), single precision. loads: b (3, n_functions) of the
            differences of density, kinetic and xc energy density to superposed atoms. squares: the
            constants, (3,).
        dipole: of the molecule, (3,). excess: electrons that superposed atoms lack.
        energy: without that of atoms and neutral pairs. forces: (3 n_atoms,), likewise, or None.
    """

    structure: Structure
    moments: Tensor
    moments_by_position: Tensor
    gram: Tensor
    loads: Tensor
    squares: Tensor
    dipole: Tensor
    excess: float
    energy: float
    forces: Tensor | None

    def contracted(self, contraction: Tensor) -> MoleculeData:
        """With functions that are the columns of a matrix (n_functions, n_contracted)."""
        gram = contraction.T @ (self.gram.double() @ contraction)
        return replace(self, gram=gram.float(), loads=self.loads @ contraction)

    def squared_errors(self, coefficients: Tensor) -> Tensor:
        """The module's error of each field (3,) with coefficients (3, n_functions)."""
        product = (coefficients.float() @ self.gram).double()
        return (coefficients * (product - 2 * self.loads)).sum(dim=1) + self.squares


def prepare_molecule(
    sample: Sample,
    basis: AtomicBasis,
    atoms: Mapping[str, SphericalAtom],
    descriptor: GMP,
    n_points: int,
    seed: int = 0,
) -> MoleculeData:
    """Labels and features of a sample with density, kinetic and xc fields and an energy.

    Args:
        n_points: drawn for the fit. seed: of the draw.

    Raises:
        ModelError: a periodic sample, one without a field, or unpaired electrons.
    """
    structure = sample.structure
    _refuse(sample)
    points, weights = torch.tensor(sample.points), torch.tensor(sample.weights)
    superposed = superposed_fields(structure, points, atoms, names=LOCAL_FIELDS)
    differences = torch.stack(
        [torch.tensor(sample.fields[f]) - superposed[f] for f in LOCAL_FIELDS]
    )
    chosen, shares = _draw(superposed["density"], differences[0], weights, n_points, seed)
    importance = shares * weights[chosen] / (superposed["density"][chosen] + _TAIL)
    functions, fields = basis.functions(structure, points[chosen]), differences[:, chosen]
    rooted = (importance.sqrt()[:, None] * functions).float()
    positions = torch.tensor(structure.positions, requires_grad=True)
    moments = atomic_moments(descriptor, structure, positions)
    slopes = jacobian(moments.flatten(), positions).unflatten(0, moments.shape)
    forces = None if sample.forces is None else torch.tensor(sample.forces).flatten()
    energy, pairs = sample.total_energy, pair_energy(structure, atoms, positions)
    energy, forces = without_closed(
        energy - atoms_energy(structure, atoms), forces, pairs, positions
    )
    return MoleculeData(
        structure=structure,
        moments=moments.detach(),
        moments_by_position=slopes,
        gram=rooted.T @ rooted,
        loads=(fields * importance) @ functions,
        squares=fields**2 @ importance,
        dipole=-(weights * differences[0]) @ points,
        excess=float(-structure.charge),
        energy=energy,
        forces=forces,
    )


def _refuse(sample: Sample) -> None:
    structure = sample.structure
    missing = [f for f in LOCAL_FIELDS if f not in sample.fields]
    if missing:
        raise ModelError(
            f"sample {structure.formula} has no field {', '.join(missing)}: a model of molecules "
            "learns density, kinetic and xc energy densities of fedens.kohn_sham"
        )
    if structure.pbc.any():
        raise ModelError(
            f"sample {structure.formula} is periodic: models of molecules are for isolated ones; "
            "use the main job, fedens run without the key job"
        )
    if structure.spin:
        raise ModelError(
            f"sample {structure.formula} has {structure.spin} unpaired electrons: models of "
            "molecules learn the density of both spins together, of closed shells"
        )


def _draw(
    superposed: Tensor, difference: Tensor, weights: Tensor, n_points: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Points drawn with repetition where errors count, and their weight relative to all points."""
    metric = (superposed + _TAIL) ** -0.5
    chance = weights * (metric * difference.abs() + 0.05 * superposed)
    inside = weights * (superposed > _MOLECULE)
    chance = (1 - _ANYWHERE) * chance / chance.sum() + _ANYWHERE * inside / inside.sum()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(chance, n_points, replacement=True, generator=generator)
    return chosen, 1 / (chance[chosen] * n_points)


def atomic_moments(descriptor: GMP, structure: Structure, positions: Tensor) -> Tensor:
    """Moments seen from each atom, (n_atoms, n_components): by l, then m, then series.

    Args:
        positions: (n_atoms, 3), bohr; the result is differentiable in them.
    """
    by_order = descriptor.moments(positions, structure, positions=positions)
    return torch.cat([a.permute(2, 1, 0).flatten(1) for a in by_order], dim=1)


def atoms_energy(structure: Structure, atoms: Mapping[str, SphericalAtom]) -> float:
    """Energy of the free atoms of a structure, hartree."""
    return sum(sum(find_atom(atoms, symbol).energies.values()) for symbol in structure.symbols)


def held_out(molecules: Sequence[MoleculeData], member: int, committee: int) -> list[int]:
    """Numbers of the molecules that a member of a committee is not trained on.

    None where it would meet an element in no other molecule.
    """
    chosen = left_out(len(molecules), member, committee, _SHARE)
    elements = [set(one.structure.symbols) for one in molecules]
    met = set().union(*(e for i, e in enumerate(elements) if i not in chosen))
    return chosen if met == set().union(*elements) else []


def whitened_basis(
    basis: AtomicBasis, molecules: Sequence[MoleculeData]
) -> tuple[AtomicBasis, Callable[[Structure], Tensor]]:
    """Radial functions of one atom that are orthonormal in the average G, and how they are made.

    Returns:
        the basis, and a function that gives a structure's matrix (n_functions, n_functions).
    """
    blocks = {s: [0.0 * torch.outer(a, a) for a in x] for s, x in basis.exponents.items()}
    counts = {s: [0] * len(x) for s, x in basis.exponents.items()}
    for one in molecules:
        for atom, l, where in basis.shells(one.structure):
            symbol, m = one.structure.symbols[atom], 2 * l + 1
            block = one.gram[where, where].double().reshape(-1, m, len(blocks[symbol][l]), m)
            blocks[symbol][l] += block.diagonal(dim1=1, dim2=3).sum(dim=-1)
            counts[symbol][l] += m
    matrices = {
        s: [_inverse_root(b / max(n, 1)) for b, n in zip(x, counts[s], strict=True)]
        for s, x in blocks.items()
    }

    def contraction(structure: Structure) -> Tensor:
        total = torch.zeros(2 * [basis.offsets(structure)[-1]], dtype=torch.float64)
        for atom, l, where in basis.shells(structure):
            unit = torch.eye(2 * l + 1, dtype=torch.float64)
            total[where, where] = torch.kron(matrices[structure.symbols[atom]][l], unit)
        return total

    exponents = {s: [a.tolist() for a in x] for s, x in basis.exponents.items()}
    return AtomicBasis(exponents, matrices), contraction


def _inverse_root(matrix: Tensor) -> Tensor:
    """C with C^T matrix C = 1."""
    sizes, directions = torch.linalg.eigh(matrix)
    if sizes[0] < _DEPENDENT * sizes[-1]:
        raise ModelError("too few points to tell the functions of an atom apart: raise points")
    return (directions / sizes.sqrt()).contiguous()
