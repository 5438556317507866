"""The cases of a seed, and running them."""

import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.damage import world as made_world
from tests.damage.damages import Damage
from tests.damage.harness import Stage, Verdict, copied, judge, run
from tests.damage.stages import damages_of, stages


class Case(NamedTuple):
    """STAGE/FILE/DAMAGE/NUMBER, which is its seed."""

    name: str
    stage: Stage
    file: str
    damage: Damage


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """So many cases, the same for a seed: each file of each stage has its share."""
    draw = random.Random(seed)
    piles = []
    for stage in stages(world):
        for file in stage.damaged:
            pile = damages_of(world / stage.folder / file, stage.optional)
            draw.shuffle(pile)
            piles.append((stage, file, pile))
    found: list[Case] = []
    met: Counter[str] = Counter()
    rounds = 0
    while len(found) < count and any(pile for *_, pile in piles):
        rounds += 1
        for stage, file, pile in piles:
            due = int(rounds * stage.share) > int((rounds - 1) * stage.share)
            if due and pile and len(found) < count:
                damage = pile.pop()
                name = f"{stage.name}/{file}/{damage.name}"
                met[name] += 1
                found.append(Case(f"{name}/{seed}.{met[name]}", stage, file, damage))
    return found


class Laboratory:
    """The world, and what its sound files make.

    Args:
        folder: Where all is made.
        endpoint: Address of a fake server of a language model.
    """

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._scratch = folder
        self.world = folder / "world"
        import_everything()
        made_world.make(self.world, endpoint)
        self._sound: dict[str, Any] = {}

    def judge(self, case: Case) -> Verdict:
        """Run a case, after the sound files were once."""
        if case.stage.name not in self._sound:
            self._sound[case.stage.name] = self._of_sound(case.stage)
        sound = self._sound[case.stage.name]
        found = (case.stage, case.file, case.damage, case.name)
        return judge(*found, self.world, self._scratch, sound)

    def _of_sound(self, stage: Stage) -> tuple[Any, frozenset[str]]:
        folder = self._scratch / "case"  # the same place, as paths are printed
        copied(self.world / stage.folder, folder)
        ended = run(folder, stage.command)
        assert ended.status == stage.status, f"{stage.name}: {ended.said}"
        made = stage.made(folder, ended.said)
        import shutil

        shutil.rmtree(folder)
        return made, frozenset(ended.said.splitlines())


def import_everything() -> None:
    """So that children need not."""
    import deepspeed  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import transformers
    from transformers.models.llava import image_processing_pil_llava  # noqa: F401

    import hnc_ds.captions.contents
    import hnc_ds.captions.generate
    import hnc_ds.captions.rewrite.rewrite
    import hnc_ds.captions.swap_words
    import hnc_ds.captions.tables
    import hnc_ds.cli
    import hnc_ds.evaluation.evaluate
    import hnc_ds.evaluation.mine
    import hnc_ds.export.export
    import hnc_ds.llava.answer
    import hnc_ds.llava.score
    import hnc_ds.report.compare
    import hnc_ds.report.page
    import hnc_ds.shards.contents
    import hnc_ds.train  # noqa: F401

    assert transformers.LlavaForConditionalGeneration
    assert transformers.AutoTokenizer


def table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Verdicts by stage, and the cases that failed."""
    kinds = ("ok", "traceback", "unnamed", "half", "hang", "memory", "silent")
    by_stage: dict[str, Counter[str]] = {}
    for found in verdicts:
        by_stage.setdefault(found.case.partition("/")[0], Counter())[found.verdict] += 1
    yield f"{'stage':<28}" + "".join(f"{kind:>11}" for kind in kinds)
    total: Counter[str] = Counter()
    for stage, counts in by_stage.items():
        yield f"{stage:<28}" + "".join(f"{counts[kind]:>11}" for kind in kinds)
        total += counts
    yield f"{'all':<28}" + "".join(f"{total[kind]:>11}" for kind in kinds)
    for found in verdicts:
        if found.verdict != "ok":
            yield f"{found.verdict}: --only '{found.case}'  ({found.grown >> 20} MiB) {found.line}"


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    """One in a temporary folder, with a fake server; both are gone afterwards."""
    # A process: threads of this one would not survive the fork of a case.
    serve = [sys.executable, "-m", "tests.captions.rewrite.fake_server"]
    with (
        tempfile.TemporaryDirectory(prefix="damage-") as folder,
        subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout
        yield Laboratory(Path(folder), server.stdout.readline().strip())
