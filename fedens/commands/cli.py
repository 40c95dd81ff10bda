"""The command line: ``fedens run`` and its steps."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedens import __version__
from fedens.errors import FedensError

# Threads that wait should sleep, not spin: on a busy machine spinning is many times slower. Read
# when torch and NumPy are first imported, which is inside the commands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    help=(
        "Learn electron densities and energy densities on finite-element meshes.\n\n"
        "**Start here:** `fedens run examples/aluminium.yaml` makes reference data with "
        "orbital-free DFT, trains a model, compares it with held-out structures and writes a "
        "report and ParaView files. A run that is cut off goes on when it is started again.\n\n"
        "Files and tables are in eV and angstrom, configurations in bohr and hartree."
    ),
)

ConfigurationFile = Annotated[Path, typer.Argument(help="YAML configuration of the run.")]
OutputFolder = Annotated[
    Path | None, typer.Option("--output", "-o", help="Run folder; default runs/<name>.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda; overrides the configuration.")]
Seed = Annotated[int | None, typer.Option(help="Overrides the configuration's seed.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes that label structures; overrides the configuration."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no summary.")]


def main() -> None:
    """Entry point: errors of our own are one readable message, not a traceback."""
    try:
        app()
    except FedensError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print("[red]error:[/red]", end=" ")
        console.print(str(error), markup=False)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedens {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    del version
    # its remarks about the size of a mesh would stand between the progress bars
    logging.getLogger("skfem").setLevel(logging.ERROR)


def _add_step(name: str, step: str, words: str) -> None:
    """A command that does a step of :class:`fedens.jobs.run.Run`."""

    @app.command(name, help=words)
    def command(
        config: ConfigurationFile,
        output: OutputFolder = None,
        device: Device = None,
        seed: Seed = None,
        workers: Workers = None,
        quiet: Quiet = False,
    ) -> None:
        from fedens.commands.run import run_job

        run_job(config, output, device, seed, workers, quiet, step)


_add_step(
    "run",
    "do",
    """The whole job: data, training, held-out evaluation, report, ParaView files.

    Another job where the configuration names one with its key `job`.

    Start it again after an interruption, or with a changed configuration: what has been done and
    would come out the same is not done again, and a line says so.
    """,
)
_add_step(
    "generate",
    "generate",
    """Only the reference data: one HDF5 file per structure in DIR/data.

    Of the job `generalisation`: the defects relaxed by the reference, in DIR/positions.
    """,
)
_add_step(
    "train",
    "train",
    """Only the training, with its rounds if there are any, on the data a run folder holds.

    Of the job `reference_points`: every training and its errors; of `generalisation`: the models
    fitted in small domains, after the defects where these are missing.
    """,
)
_add_step(
    "evaluate",
    "evaluate",
    """Only the comparison with held-out structures, for a run folder with data and model.

    Of the jobs `reference_points` and `generalisation`: tables and report.
    """,
)


@app.command("check-kpoints")
def check_kpoints(
    config: ConfigurationFile,
    index: Annotated[int, typer.Option(min=0, help="Which of its structures.")] = 0,
) -> None:
    """Whether the k-points of a Kohn-Sham configuration are dense enough to learn from.

    Solves one structure with the configuration's k-points and at half their spacing, which takes
    about nine times as long as one label, and shows what that changes: free energy (meV/atom),
    forces (meV/angstrom) and density. A model cannot learn what the next mesh would change:
    labels should be within 1 meV/atom and 3 meV/angstrom, or the data set teaches noise. Do this
    before `fedens generate`, on the smallest cell: a supercell folds the mesh and keeps the error.

    If it is too much, lower `theory.kspacing` (1/bohr), or smear more: Methfessel-Paxton or cold
    smearing of 0.04 to 0.05 hartree changes the energies of simple metals by less than Fermi-Dirac
    of 0.01. In fcc aluminium a spacing of 0.105 is enough then.

    **Example:** `fedens check-kpoints examples/aluminium_kohn_sham.yaml`
    """
    from fedens.commands.check_kpoints import check_kpoints as check
    from fedens.progress import Progress

    check(config, index, Progress())


@app.command()
def predict(
    structures: Annotated[Path, typer.Argument(help="Any file that ASE reads.")],
    model: Annotated[Path, typer.Option(help="Model folder, such as runs/aluminium/model.")],
    out: Annotated[Path, typer.Option(help="File to write; extended XYZ.")] = Path("predicted.xyz"),
    route: Annotated[
        str,
        typer.Option(
            help="functional, energy_density: energies and their exact derivatives; "
            "hellmann_feynman: forces of the density alone."
        ),
    ] = "functional",
    refinement_steps: Annotated[
        int, typer.Option(min=0, help="Minimisation steps from the predicted density.")
    ] = 0,
    fields: Annotated[
        bool, typer.Option("--fields", help="Also VTU files of the densities, beside the file.")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also estimated errors; takes a few times longer.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Energies (eV), forces (eV/angstrom), stress and densities from a trained model."""
    from fedens.commands.predict import predict_file
    from fedens.progress import Progress

    predict_file(
        structures,
        model,
        out,
        Progress(quiet),
        route=route,
        refinement_steps=refinement_steps,
        fields=fields,
        uncertainty=uncertainty,
        device=device,
    )


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(help="Gaussian cube (.cube, .cub), VASP CHGCAR or XCrySDen .xsf files."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the data set; made if it is missing.")],
    unit: Annotated[
        str | None,
        typer.Option(
            help="Of the density: electron/bohr^3 or electron/angstrom^3. Cube files have the "
            "first by convention, xsf files do not say, in CHGCAR files it is fixed."
        ),
    ] = None,
    periodic: Annotated[
        bool,
        typer.Option(
            "--periodic",
            help="Cube files are crystals. They do not say so themselves; without this (or "
            "--structures) their density must vanish at the walls of the box.",
        ),
    ] = False,
    structures: Annotated[
        Path | None,
        typer.Option(
            help="Any file that ASE reads: the structures of all files, in their order, with more "
            "digits than these have. Atoms and cells are compared."
        ),
    ] = None,
    energies: Annotated[
        Path | None,
        typer.Option(help="Text file, lines of a sample's name and its total energy in eV."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Electrons that the integral may be from a whole number.")
    ] = 0.01,
    spacing: Annotated[
        float | None,
        typer.Option(
            help="Of the finite elements (length over order), angstrom; default 0.34 bohr."
        ),
    ] = None,
    order: Annotated[int, typer.Option(min=1, max=10, help="Of the finite elements.")] = 10,
    quiet: Quiet = False,
) -> None:
    """Total electron densities of other codes as a data set to learn from.

    Each file becomes one sample, named after the file; after its folder, if it is just called
    CHGCAR. The uniform grid is interpolated by trigonometric polynomials at the points of a
    finite-element mesh: exact for the densities of plane-wave codes, blurred at the nuclei of
    all-electron ones; the line about each file says by how much, relative to all electrons. A
    file is refused, with the numbers, if its density does not integrate to a whole number of
    electrons, has negative or missing values, or belongs to another cell. To learn from the
    densities, import them into the folder `data` of a run and go on with `fedens train`, with
    pseudopotentials of as many valence electrons in the configuration.

    **Example:** `fedens import run*/CHGCAR --out data --energies energies.txt`
    """
    from fedens.commands.import_densities import import_files
    from fedens.fem.tensor import DEFAULT_SPACING
    from fedens.progress import Progress
    from fedens.units import BOHR_IN_ANGSTROM

    import_files(
        files,
        out,
        Progress(quiet),
        structures=structures,
        energies=energies,
        unit=unit,
        periodic=periodic,
        tolerance=tolerance,
        spacing=DEFAULT_SPACING if spacing is None else spacing / BOHR_IN_ANGSTROM,
        order=order,
    )


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A data set, or one sample (.h5) of it.")],
    to: Annotated[
        Path,
        typer.Argument(
            help="Folder for the files; for one sample without --cube or --chgcar, the file, "
            "with a name that ends in .vtu or .cube or holds CHGCAR."
        ),
    ],
    cube: Annotated[bool, typer.Option("--cube", help="Gaussian cube files.")] = False,
    chgcar: Annotated[bool, typer.Option("--chgcar", help="VASP CHGCAR files.")] = False,
    spacing: Annotated[
        float | None,
        typer.Option(
            help="Of the uniform grid, angstrom; default: as fine as the sample's mesh, 0.2 for "
            "molecules on tetrahedra."
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model folder: its predicted densities beside the others.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; for the model.")] = "auto",
) -> None:
    """Fields as VTU files for ParaView, or densities on uniform grids as cube or CHGCAR files.

    Cube files are in bohr and electron/bohr^3; CHGCAR files in angstrom, density times volume.
    The sum over the grid is the number of electrons to 0.1 % when the spacing resolves the
    density, which 0.2 angstrom does for valence electrons; each line printed says how many.

    Of molecules with all their electrons, on tetrahedra, the grid holds the true density except
    next to the nuclei: within three spacings, or half the distance to the next nucleus, a smooth
    function with the same charge takes its place. The first line of the file says within what
    radius.

    **Example:** `fedens export runs/aluminium/data grids --cube --chgcar --spacing 0.2`
    """
    from fedens.commands.export import export as export_to
    from fedens.learning.devices import resolve_device
    from fedens.models.base import Model
    from fedens.units import BOHR_IN_ANGSTROM

    step = None if spacing is None else spacing / BOHR_IN_ANGSTROM
    predictor = None if model is None else Model.load(model, resolve_device(device))
    kinds = [kind for kind, wanted in {"cube": cube, "chgcar": chgcar}.items() if wanted]
    export_to(source, to, kinds, step, predictor, typer.echo)


@app.command()
def info(
    path: Annotated[
        Path, typer.Argument(help="A run folder, a data set, a sample (.h5) or a model folder.")
    ],
) -> None:
    """What a run folder holds; what a data set, a sample or a model is: elements, units, sizes."""
    from fedens.commands.info import describe_path

    table = Table(show_header=False, box=None)
    for name, value in describe_path(path).items():
        table.add_row(name, str(value))
    Console().print(table)
