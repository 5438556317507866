"""Scores of the trainings that are done, in a file beside the page: on another machine the rest is
trained, and the page is of all.
"""

from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from experiments.preset_tables import Scores
from hnc_ds.atomic_files import atomic_write
from hnc_ds.errors import UserError


class _Recorded(msgspec.Struct):
    protocol: dict[str, Any]
    """All that the scores depend on beside objective and seed."""
    scores: dict[str, dict[str, dict[str, float]]]
    """Objective, seed, BENCHMARK/METRIC/GROUP."""


class Records:
    """The scores of one protocol.

    Args:
        path: Of the file; made when there is something to keep.
        protocol: All that scores depend on beside objective and seed, as JSON.

    Raises:
        UserError: The file is of another protocol, or no such file.
    """

    def __init__(self, path: Path, protocol: dict[str, Any]) -> None:
        self._path, self._lock = path, Lock()
        self._kept = _Recorded(protocol, {})
        if not path.is_file():
            return
        try:
            self._kept = msgspec.json.decode(path.read_bytes(), type=_Recorded)
        except msgspec.DecodeError as error:
            raise UserError(f"{path}: no records of presets ({error}); remove it") from error
        plain = msgspec.json.decode(msgspec.json.encode(protocol))
        if changed := [key for key in plain if self._kept.protocol.get(key) != plain[key]]:
            raise UserError(
                f"{path}: of another protocol ({', '.join(changed)}); remove it, or give another "
                "--page"
            )

    def scores(self, name: str, seed: int) -> Scores:
        """Of a training; nothing where it is not done."""
        found = self._kept.scores.get(name, {}).get(str(seed), {})
        return {_key(key): value for key, value in found.items()}

    def keep(self, name: str, seed: int, scores: Scores) -> None:
        """Write the scores of a training, with those that are there."""
        with self._lock:
            of_seeds = self._kept.scores.setdefault(name, {})
            of_seeds[str(seed)] = {"/".join(key): value for key, value in scores.items()}
            atomic_write(self._path, msgspec.json.format(msgspec.json.encode(self._kept), indent=1))


def _key(key: str) -> tuple[str, str, str]:
    benchmark, metric, group = key.split("/", 2)
    return benchmark, metric, group
