"""Between a start model and a fine-tuned one: what each mixture of their weights keeps and gains.

    hnc-ds interpolate ViT-B-32:openai runs/first --sweep 0:1:0.1 --shards data/gqa/shards/val \\
        --out runs/first/interpolated
    hnc-ds interpolate ViT-B-32:openai runs/first --save 0.4 --save-to models/first-0.4

Source: WiSE-FT, Wortsman et al. 2022. Which weight is best depends on the models and on what is
wanted, so none is built in. Weights of both ends stay in memory, on the CPU, beside the model that
is measured. Pictures of shards are decoded once where they take no more than MOST_KEPT bytes, all
others for each point; captions are tokenized for each point.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import msgspec

from hnc_ds.config import EvaluateConfig, InterpolateConfig
from hnc_ds.evaluation.ask import fingerprint as of_questions
from hnc_ds.evaluation.benchmarks import BENCHMARKS, chosen_benchmarks
from hnc_ds.evaluation.embed import PictureBatch, ShardPictures
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.evaluation.ends import load_ends
from hnc_ds.evaluation.evaluate import Asked, evaluation_device, measure_all, read_asked
from hnc_ds.evaluation.items import (
    ItemsHeader,
    Mixture,
    fingerprint,
    items_path,
    read_header,
    read_results,
    write_results,
)
from hnc_ds.evaluation.mix import State, mixed, own_state, set_weights, state_sha256
from hnc_ds.evaluation.mixed_folder import refuse_existing, write_mixed
from hnc_ds.evaluation.places import read_places
from hnc_ds.evaluation.question_sets import QUESTION_SETS
from hnc_ds.evaluation.side_by_side import sweep_table, told_apart
from hnc_ds.evaluation.sweep import best_point, check_metric, read_share, read_sweep, share_name
from hnc_ds.evaluation.table import key_of
from hnc_ds.records import Result
from hnc_ds.shards.images import ImageSettings
from hnc_ds.shards.reader import ShardReader

MOST_KEPT = 4 * 2**30
"""Bytes of decoded pictures that are kept in memory: 28,000 of 224 pixels on a side."""


def interpolate(config: InterpolateConfig) -> None:
    """Measure mixtures of two models, or write one as a checkpoint folder, or both.

    Raises:
        UserError: Models that cannot be had or mixed, no such shards, benchmark or metric, a sweep
            that is none, an output that cannot be written or would replace something.
    """
    shares = read_sweep(config.sweep)
    check_metric(config.metric, _versions(config))
    saved = None if config.save is None else read_share(config.save)
    if config.save_to is not None:
        refuse_existing(config.save_to, config.overwrite)
    asked = None if config.out is None else read_asked(_evaluation(config, config.out))
    ends = _Ends(config)
    if asked is not None and config.out is not None:
        sweep = _Sweep(ends, asked, config, config.out)
        share, best = best_point(sweep.measured(shares), config.metric)
        files, name = sweep.files(shares), "/".join(key_of(best))
        print(f"{config.start} to {config.final}\n\n{sweep_table(files, config.seed)}\n")
        apart = told_apart(files, share, key_of(best), config.seed)
        print(f"highest {name}: {best.value:.4f} at {share}{apart}")
    if saved is not None and config.save_to is not None:  # last: a sweep cut off can be repeated
        ends.save(saved, config.save_to)


class _Ends:
    """The weights of both models, untouched, and one model that takes any mixture of them."""

    def __init__(self, config: InterpolateConfig) -> None:
        start, final = load_ends(config.start, config.final)
        self._start, self._final = own_state(start.model), own_state(final.model)
        self.model = final.model.eval()
        self.name = config.name or final.name
        self._mixture = Mixture(
            config.start,
            config.final,
            "",
            state_sha256(self._start, start.model.config),
            state_sha256(self._final, final.model.config),
        )

    def at(self, share: Decimal) -> State:
        """The weights at a share of the final ones."""
        return mixed(self._start, self._final, share)

    def mixture(self, share: Decimal) -> Mixture:
        """What stands in files about a mixture."""
        return msgspec.structs.replace(self._mixture, share=share_name(share))

    def save(self, share: Decimal, folder: Path) -> None:
        """Write a mixture as a checkpoint folder."""
        origin = msgspec.to_builtins(self.mixture(share))
        beside = self.model.text_files()
        write_mixed(folder, self.at(share), self.model.config, {"mixture": origin}, beside)
        print(f"wrote {folder}: {share_name(share)} of {self.name}")


@dataclass(frozen=True)
class _Sweep:
    """Points of one pair of models on one set, each in a file of its own."""

    ends: _Ends
    asked: Asked
    config: InterpolateConfig
    out: Path

    def measured(self, shares: Iterable[Decimal]) -> dict[str, list[Result]]:
        """Results by the share's name; what is there already is read, the rest is measured.

        Raises:
            UserError: As `measure`; a metric that is none is told after the first point.
        """
        points = {share: self._known(share) for share in shares}
        missing = [share for share, results in points.items() if results is None]
        if missing:
            device, config = evaluation_device(), self.config
            model, name = self.ends.model.to(device), self.ends.name
            encoder = Encoder(model, device, config.batch, config.workers, name=name)
            pictures = self._pictures(encoder, keep=len(missing) > 1)
            for share in missing:
                points[share] = results = self._measure(share, encoder, pictures)
                best_point({share_name(share): results}, self.config.metric)  # is it a metric?
        return {share_name(share): results or [] for share, results in points.items()}

    def files(self, shares: Iterable[Decimal]) -> dict[str, Path]:
        """Where the results of each point lie, by the share's name."""
        return {share_name(share): self._evaluation(share).out for share in shares}

    def _known(self, share: Decimal) -> list[Result] | None:
        """The results of a point that was measured before: same models, same set, same settings."""
        path = self._evaluation(share).out
        if not (path.is_file() and items_path(path).is_file()):
            return None
        results = read_results(path)
        measured = {row.benchmark: row.version for row in results}
        if measured == _versions(self.config) and self._is_of(read_header(items_path(path)), share):
            print(f"{path}: measured before, kept")
            return results
        print(f"{path}: of other models, shards or settings; measured again")
        return None

    def _is_of(self, header: ItemsHeader, share: Decimal) -> bool:
        if header.mixture is None:
            return False
        reader, questions = self.asked.reader, self.asked.questions
        shards = "" if reader is None else fingerprint(reader.index)
        return (
            _weights(header.mixture) == _weights(self.ends.mixture(share))
            and header.model == self._name(share)
            and (header.fingerprint, header.seed) == (shards, self.config.seed)
            and {name: of_questions(asked) for name, asked in questions.items()}
            == {name: coverage.asked for name, coverage in header.sets.items()}
        )

    def _measure(
        self, share: Decimal, encoder: Encoder, pictures: Iterable[PictureBatch] | None
    ) -> list[Result]:
        settings = self._evaluation(share)
        set_weights(encoder.model, self.ends.at(share))
        measured = measure_all(encoder, self._name(share), self.asked, settings, pictures)
        header = msgspec.structs.replace(measured.header, mixture=self.ends.mixture(share))
        settings.out.unlink(missing_ok=True)  # items of one point never lie beside rows of another
        write_results(settings.out, measured.results, header, measured.items)
        print(f"wrote {settings.out}")
        return measured.results

    def _evaluation(self, share: Decimal) -> EvaluateConfig:
        """What 'hnc-ds evaluate' would be told for a point."""
        return _evaluation(self.config, self.out / f"alpha-{share_name(share)}.json")

    def _name(self, share: Decimal) -> str:
        return f"{self.ends.name}@{share_name(share)}"

    def _pictures(self, encoder: Encoder, *, keep: bool) -> Iterable[PictureBatch] | None:
        """Those of the shards."""
        reader = self.asked.reader
        if reader is None:
            return None
        pictures = encoder.read(ShardPictures(reader))
        keep = keep and _bytes_of(reader, encoder.model.image_settings) <= MOST_KEPT
        return _kept(pictures) if keep else pictures


def _evaluation(config: InterpolateConfig, out: Path) -> EvaluateConfig:
    return EvaluateConfig(
        models=(config.final,),
        shards=config.shards,
        data=config.data,
        images=config.images,
        allow_missing=config.allow_missing,
        out=out,
        benchmarks=config.benchmarks,
        batch=config.batch,
        workers=config.workers,
        seed=config.seed,
    )


def _versions(config: InterpolateConfig) -> dict[str, int]:
    """Of the benchmarks that are measured."""
    names = () if config.shards is None else chosen_benchmarks(config.benchmarks)
    of_shards = {name: BENCHMARKS[name].version for name in names}
    return of_shards | {name: QUESTION_SETS[name].version for name in read_places(config.data)}


def _weights(mixture: Mixture) -> tuple[str, str, str]:
    """What a mixture is, whatever its ends were called."""
    return mixture.share, mixture.start_sha256, mixture.final_sha256


def _bytes_of(reader: ShardReader, view: ImageSettings) -> int:
    return len(reader) * 3 * view.size**2


def _kept(pictures: Iterable[PictureBatch]) -> list[PictureBatch]:
    """All pictures, in memory of this process: what workers send lies in shared memory."""
    return [PictureBatch(*(part.clone() for part in batch)) for batch in pictures]
