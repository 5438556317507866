"""Commands of this project, shown as one would type them and run: what the demos are made of."""

import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from hnc_ds.checkpoint import checkpoint_folder, complete_checkpoints
from hnc_ds.errors import UserError

PRCTL = getattr(ctypes.CDLL(None), "prctl", None)
PR_SET_PDEATHSIG = 1


def _ranks_here(wanted: int) -> int:
    """As many ranks as wanted, but one GPU each where there are GPUs."""
    import torch

    return min(wanted, torch.cuda.device_count()) if torch.cuda.is_available() else wanted


def hnc_ds(arguments: str) -> None:
    """Run a stage.

    Raises:
        UserError: It failed; its own line stands above.
    """
    _run([_beside_python("hnc-ds")], arguments)


def train_unless_done(folder: Path, steps: int, ranks: int, flags: str) -> None:
    """Train a run with the deepspeed launcher on the CPU's configuration, or the rest of it.

    Args:
        folder: Of the run.
        steps: Of the whole training.
        ranks: Processes.
        flags: Others of the training.

    Raises:
        UserError: It failed; its own line stands above.
    """
    if complete_checkpoints(folder)[-1:] == [checkpoint_folder(folder, steps)]:
        print(f"{folder}: trained before")
        return
    _run(
        [_beside_python("deepspeed"), "--num_gpus", str(_ranks_here(ranks))],
        f"--log_level error --master_port {_free_port()} --module hnc_ds.train "
        f"--deepspeed_config cpu --run {folder} --steps {steps} {flags} --resume",
    )


def _run(command: list[str], arguments: str) -> None:
    """Show a command as one would type it, and run it.

    Args:
        command: Its program and first arguments.
        arguments: The others, as one types them.

    Raises:
        UserError: It failed; its own line stands above.
    """
    shown = [Path(command[0]).name, *command[1:], *shlex.split(arguments)]
    print(f"\n$ {shlex.join(shown)}", flush=True)
    if status := _status_of([*command, *shlex.split(arguments)]):
        raise UserError(f"'{shlex.join(shown[:2])}' stopped with status {status}; see above")


def _status_of(command: list[str]) -> int:
    """Run a command to its end; where this process is asked to stop, that is asked of it too."""
    with subprocess.Popen(command, env=_environment(), preexec_fn=_end_with_parent) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # Ctrl-C went to both, and a second one would be meant to end it at once.
            process.terminate()
            process.wait()
            raise


def _end_with_parent() -> None:
    """In the new process: be asked to stop when the parent is killed. On Linux alone."""
    if PRCTL:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)


def _environment() -> dict[str, str]:
    """With DeepSpeed told that there is only a CPU, so that it does not warn of it four times."""
    import torch

    known = {} if torch.accelerator.is_available() else {"DS_ACCELERATOR": "cpu"}
    return known | os.environ


def _beside_python(name: str) -> str:
    """A command installed with this Python, whether or not its folder is on the PATH.

    Raises:
        UserError: There is none.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise UserError(f"no command '{name}' beside {sys.executable}; install hnc-ds again")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
