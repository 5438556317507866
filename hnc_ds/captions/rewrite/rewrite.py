"""captions.jsonl and scene graphs -> captions.jsonl with groups in a language model's words.

    hnc-ds rewrite --captions train.captions.jsonl.gz --scene-graphs train_sceneGraphs.json \
        --endpoint http://localhost:8000/v1 --model NAME --out train.rewritten.captions.jsonl.gz

The groups of the input come first, unchanged; those of the model follow and are tagged by
``source``. The scene graph proves the label of every caption. OUT.stats.json holds the counts,
OUT.answers.sqlite all answers. Jobs of an array (--part) share the images.
"""

import asyncio
import gc
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace
from tqdm import tqdm

from hnc_ds.captions.audit import audit, table
from hnc_ds.captions.caption_stats import Counts, read_counts, stats_json, stats_path_of
from hnc_ds.captions.captions_file import (
    Chunk,
    check_name,
    chunk_of,
    holds_captions_of,
    open_parts,
    write_captions,
)
from hnc_ds.captions.coverage import coverage_of
from hnc_ds.captions.formats.captions import check_is_file, read_captions
from hnc_ds.captions.formats.json_members import Member
from hnc_ds.captions.formats.scene_graphs import ReadCounts, decode_scene_graph, scene_graph_members
from hnc_ds.captions.parts import Parts, write_part
from hnc_ds.captions.rewrite.answers import Answers, Question, gather_answers, open_answers
from hnc_ds.captions.rewrite.endpoint import Endpoint, check_url
from hnc_ds.captions.rewrite.image import SOURCE, WRITTEN, Wanted, reworded
from hnc_ds.captions.rewrite.prompts import tokens_of
from hnc_ds.captions.text_classifier import check_installed
from hnc_ds.config import RewriteConfig
from hnc_ds.config.checks import read_part
from hnc_ds.errors import UserError, counted
from hnc_ds.interruptions import signals_cancel
from hnc_ds.output_lock import only_writer
from hnc_ds.reading import sha256_of
from hnc_ds.records import ImageCaptions, SceneGraph

VERSION = 1
"""Increased when the same answers would give other captions; older parts are then removed."""

AUDITED_IMAGES = 5000

_Item = tuple[ImageCaptions, Member]
_T = TypeVar("_T")


class _Settings(msgspec.Struct, frozen=True):
    """Everything the captions depend on, besides the answers."""

    version: int
    source: str
    source_sha256: str
    scene_graphs: str
    scene_graphs_sha256: str
    model: str
    per_image: int
    rewordings: int
    negatives: int
    temperature: float
    seed: int
    compressed: bool
    types: tuple[str, ...] = (WRITTEN,)


def rewrite(config: RewriteConfig) -> None:
    """Write a file of captions with those in the model's words, and the statistics.

    A run that was stopped continues where it was when started again with the same settings;
    no question is sent twice.

    Raises:
        UserError: Missing or broken input, captions of other graphs, existing output, no server or
            model, a server that fails, disk full, another process writes it.
    """
    _check(config)
    settings = _Settings(
        version=VERSION,
        source=config.captions.name,
        source_sha256=sha256_of(config.captions),
        scene_graphs=config.scene_graphs.name,
        scene_graphs_sha256=sha256_of(config.scene_graphs),
        model=config.model,
        per_image=config.per_image,
        rewordings=config.rewordings,
        negatives=config.negatives,
        temperature=config.temperature,
        seed=config.seed,
        compressed=config.out.suffix == ".gz",
    )
    if not (config.overwrite or config.audit) and holds_captions_of(config.out, settings):
        print(f"rewrite: {config.out} already contains these captions; nothing to do")
        return
    place = read_part(config.part)
    total: Counts | None
    with only_writer(config.out, place):
        parts = open_parts(config.out, settings, config.overwrite, place)
        if parts is None:
            print(f"rewrite: {config.out} already contains these captions")
            total = read_counts(config.out)
        else:
            total = _write(config, settings, parts, place)
        if config.audit and total is not None:
            _audit(config, settings, total)


def _check(config: RewriteConfig) -> None:
    """Check the settings before work starts."""
    check_is_file(config.captions)
    if not config.scene_graphs.is_file():
        raise UserError(
            f"{config.scene_graphs}: no such file; give the scene graphs that {config.captions} "
            "was made from"
        )
    if os.path.realpath(config.captions) == os.path.realpath(config.out):
        raise UserError(f"out is {config.out}, which is also an input; name another file")
    check_url(config.endpoint)
    check_name(config.out)
    if config.audit:
        check_installed()


def _write(
    config: RewriteConfig, settings: _Settings, parts: Parts, place: tuple[int, int]
) -> Counts | None:
    """Write the file, or a job's part of it; returns the counts if the file is complete."""
    cache = config.cache or answers_path_of(config.out)
    read = ReadCounts()
    with open_answers(cache, place) as answers, _Model(config, answers) as model:

        def make(items: list[_Item]) -> Chunk:
            irregular: Counter[str] = Counter()
            wanted = Wanted(config.per_image, config.rewordings, config.negatives, config.seed)
            graphs = [decode_scene_graph(config.scene_graphs, m, irregular) for _, m in items]
            for (captions, _), graph in zip(items, graphs, strict=True):
                _check_objects(config, captions, graph)
            made = model.run(
                _gather(
                    reworded(captions, graph, wanted, model.ask, irregular)
                    for (captions, _), graph in zip(items, graphs, strict=True)
                )
            )
            gc.collect(1)  # young tasks and connections leave cycles, other than captions
            covered = map(coverage_of, graphs, made)
            return chunk_of(zip(made, covered, strict=True), irregular, settings.compressed)

        total = write_captions(
            parts, settings, _aligned(config, read), make, 1, read.irregular, place
        )
        print(
            f"rewrite: {counted(model.answered, 'answer')} of {config.model}, "
            f"{counted(model.known, 'answer')} from {answers.path}"
        )
    if total is not None and place[1] > 1:
        gather_answers(cache)
    return total


def answers_path_of(out: Path) -> Path:
    """train.captions.jsonl.gz -> train.captions.answers.sqlite"""
    name = stats_path_of(out).name.removesuffix(".stats.json")
    return out.with_name(f"{name}.answers.sqlite")


def _aligned(config: RewriteConfig, read: ReadCounts) -> Iterator[_Item]:
    """Captions and graph of each image. Graphs of images without captions are skipped.

    Raises:
        UserError: An image has no graph after that of the image before it.
    """
    graphs = scene_graph_members(config.scene_graphs, read)
    for captions in read_captions(config.captions):
        member = next((m for m in graphs if m.key == captions.image_id), None)
        if member is None:
            raise UserError(
                f"{config.captions}: image '{captions.image_id}' is not in {config.scene_graphs}, "
                "or not in this order; give the scene graphs that the captions were made from"
            )
        yield captions, member


def _check_objects(config: RewriteConfig, captions: ImageCaptions, graph: SceneGraph) -> None:
    """Check that the objects that captions name are in the graph.

    Raises:
        UserError: One is not.
    """
    for group in captions.groups:
        for named in (group.objects, *(negative.objects for negative in group.negatives)):
            if any(not 0 <= i < len(graph.objects) for i in named):
                raise UserError(
                    f"{config.captions}: image '{captions.image_id}' has captions about objects "
                    f"{named[:4]}, but {counted(len(graph.objects), 'object')} in "
                    f"{config.scene_graphs}; give the scene graphs that the captions were made from"
                )


async def _gather(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    return await asyncio.gather(*work)


class _Model:
    """The model, its cached answers, and the event loop.

    Args:
        config: Model and endpoint.
        answers: Cached answers.
    """

    def __init__(self, config: RewriteConfig, answers: Answers) -> None:
        self.known = 0
        """Number of answers from the cache."""
        self._config, self._answers = config, answers
        self._endpoint = Endpoint(
            config.endpoint, config.model, config.timeout, config.retries, config.requests
        )
        self._pending: dict[bytes, asyncio.Task[str]] = {}
        self._loop = asyncio.new_event_loop()
        self._progress = tqdm(desc="answers", unit=" answers", position=1, disable=None)

    def __enter__(self) -> "_Model":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel pending requests."""
        if error is not None:  # a signal may come between making a coroutine and starting it
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        self._progress.close()
        self.run(self._end())
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._endpoint.close()

    @property
    def answered(self) -> int:
        """Number of answers of the server."""
        return self._endpoint.answered

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to its end. A signal cancels it and is then raised."""
        task = self._loop.create_task(work)
        with signals_cancel(lambda: self._loop.call_soon_threadsafe(task.cancel)):
            return self._loop.run_until_complete(task)

    async def ask(self, prompt: str, count: int) -> str:
        """The cached answer to a prompt, or the server's; equal questions are sent once."""
        config = self._config
        question = Question(config.model, prompt, config.seed, config.temperature, tokens_of(count))
        key = question.key()
        if (answer := self._answers.get(key)) is not None:
            self.known += 1
            return answer
        if key not in self._pending:
            self._pending[key] = asyncio.ensure_future(self._fetch(key, question))
        return await self._pending[key]

    async def _fetch(self, key: bytes, question: Question) -> str:
        try:
            answer = await self._endpoint.ask(question)
            self._answers.put(key, answer)
            self._progress.update()
            return answer
        finally:
            del self._pending[key]


def _audit(config: RewriteConfig, settings: _Settings, total: Counts) -> None:
    """Audit the text-only baseline on the reworded captions."""
    with tempfile.TemporaryDirectory() as folder:
        only = Path(folder) / "rewritten.captions.jsonl"
        with only.open("wb") as file:
            for image in read_captions(config.out):
                groups = tuple(group for group in image.groups if group.source == SOURCE)
                file.write(msgspec.json.encode(replace(image, groups=groups)) + b"\n")
        results = audit(only, AUDITED_IMAGES, config.seed)
    write_part(stats_path_of(config.out), [stats_json(settings, settings.types, total, results)])
    print(table(results))
