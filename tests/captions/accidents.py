"""A stage of captions in a process of its own that meets an accident: a kill, or a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

import hnc_ds

# Small chunks and parts, so that few images make several; the same in every run that is compared.
SCRIPT = """
import importlib, json, os, resource, signal, sys
from pathlib import Path
from hnc_ds import config
from hnc_ds.captions import captions_file
from hnc_ds.captions.parts import Parts
from hnc_ds.errors import UserError
captions_file.CHUNK_IMAGES, captions_file.PART_CHUNKS = 4, 2
stage, settings, paths, accident, more = sys.argv[1:]
values = {key: Path(path) for key, path in json.loads(paths).items()} | json.loads(more)
add = Parts.add
def dying_add(self, number, content, stats):
    if accident == f"kill at part {number}":
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, number, content, stats)
Parts.add = dying_add
if accident == "kill while joining":
    Parts.join = lambda self, count: os.kill(os.getpid(), signal.SIGKILL)
if accident == "full disk":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
if __name__ == "__main__":
    run = getattr(importlib.import_module(f"hnc_ds.captions.{stage}"), stage)
    try:
        run(getattr(config, settings)(**values))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2)
"""


def run_stage(
    folder: Path,
    stage: str,
    settings: str,
    paths: dict[str, Path],
    accident: str = "none",
    hash_seed: str = "0",
    **more: object,
) -> subprocess.CompletedProcess[str]:
    """Run a stage to its end, or to its accident.

    Args:
        folder: For the script.
        stage: Name of a module of hnc_ds.captions and of its function.
        settings: Name of its dataclass.
        paths: Those of its settings that are paths.
        accident: "kill at part N", "kill while joining" or "full disk".
        hash_seed: PYTHONHASHSEED.
        more: Further settings.
    """
    script = folder / "run.py"
    script.write_text(SCRIPT)
    encoded = msgspec.json.encode({key: str(path) for key, path in paths.items()}).decode()
    arguments = [stage, settings, encoded, accident, msgspec.json.encode(more).decode()]
    root = str(Path(hnc_ds.__file__).parents[1])
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
