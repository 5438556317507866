"""Write the SLURM scripts of this version, which the installed package holds.

    hnc-ds slurm-scripts .          # ./slurm/train.sh, ./slurm/site.sh, ...

The scripts name each other as slurm/NAME from the folder that jobs are submitted from, and write
their logs to slurm/logs. They call the command hnc-ds, not files of a checkout.
"""

from pathlib import Path

from hnc_ds.atomic_files import atomic_write, writing
from hnc_ds.config import SlurmScriptsConfig
from hnc_ds.errors import UserError, counted

SHIPPED = (
    Path(__file__).parent / "slurm",  # installed
    Path(__file__).parents[1] / "slurm",  # a checkout
)
KEPT = "site.sh"
"""The script that users edit."""
SUFFIXES = (".sh", ".json", ".md")


def slurm_scripts(config: SlurmScriptsConfig) -> None:
    """Write the scripts, and print what to do next.

    Raises:
        UserError: A script was changed and ``overwrite`` is not set; the folder cannot be written.
    """
    folder = config.folder / "slurm"
    missing, changed = _compared(folder)
    if changed and not config.overwrite:
        more = f" (and {counted(len(changed) - 1, 'more file')})" if len(changed) > 1 else ""
        raise UserError(
            f"{folder / changed[0]}: differs from this version's{more}; name another folder, or "
            f"pass --overwrite, which keeps only {KEPT}"
        )
    new = [*missing, *(name for name in changed if name != KEPT)]
    with writing(folder):
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        for name in new:
            _write(folder / name, shipped()[name])
    done = f"{counted(len(new), 'file')} written to {folder}" if new else f"{folder} is up to date"
    where = "this folder" if config.folder == Path() else config.folder
    print(
        f"slurm-scripts: {done}; next: edit {folder / KEPT}, then submit jobs from {where}: "
        "sbatch slurm/doctor.sh"
    )


def shipped() -> dict[str, bytes]:
    """The files by name."""
    source = next(folder for folder in SHIPPED if folder.is_dir())
    files = (path for path in sorted(source.iterdir()) if path.suffix in SUFFIXES)
    return {path.name: path.read_bytes() for path in files}


def _compared(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files that a folder lacks, and of those that differ there.

    Raises:
        UserError: A file cannot be read.
    """
    missing, changed = [], []
    for name, content in shipped().items():
        path = folder / name
        if not path.exists():
            missing.append(name)
        elif not path.is_file() or path.read_bytes() != content:
            changed.append(name)
    return missing, changed


def _write(path: Path, content: bytes) -> None:
    atomic_write(path, content)
    if content.startswith(b"#!"):
        path.chmod(0o755)
