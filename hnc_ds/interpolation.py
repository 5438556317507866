"""Interpolate the weights of a start model and a fine-tuned one, and measure every point.

    hnc-ds interpolate ViT-B-32:openai runs/first --sweep 0:1:0.1 --shards data/gqa/shards/val \\
        --out runs/first/interpolated
    hnc-ds interpolate ViT-B-32:openai runs/first --save 0.4 --save-to models/first-0.4

A coefficient is the weight of the final model: 0 is the start model. Coefficients are decimal
numbers, so that ten steps of 0.1 are exactly 1 and every sweep names a point alike.

The weights of both endpoints stay in CPU memory, in addition to the model that is measured. Images
of shards are decoded once if they fit in MAX_KEPT_BYTES; all other images, and captions, are read
for each point.

Source: WiSE-FT, Wortsman et al. 2022.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal, InvalidOperation
from math import inf, isnan
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError

from hnc_ds.atomic_files import atomic_folder, atomic_write, writing
from hnc_ds.checkpoint import CheckpointFiles, write_files
from hnc_ds.config import InterpolateConfig
from hnc_ds.distributed import local_device
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.benchmarks import HELD_OUT
from hnc_ds.evaluation.embed import ImageBatch, ShardImages
from hnc_ds.evaluation.encoder import (
    OWN_START,
    Encoder,
    NamedModel,
    load_named_model,
    load_own_start,
)
from hnc_ds.evaluation.evaluate import measure_all
from hnc_ds.evaluation.inputs import EvaluationInputs, read_inputs
from hnc_ds.evaluation.released.measure import fingerprint as fingerprint_of_questions
from hnc_ds.evaluation.results import (
    Interpolation,
    ItemsHeader,
    fingerprint,
    items_path,
    key_of,
    read_header,
    read_results,
    write_results,
)
from hnc_ds.evaluation.tables import difference_to_first, headlines, sweep_table
from hnc_ds.model.clip import SCALE, Clip, State, own_state, set_weights, state_sha256
from hnc_ds.model.load import CONFIG_NAME, WEIGHTS_NAME
from hnc_ds.records import Result

MAX_POINTS = 1001


def read_sweep(text: str) -> list[Decimal]:
    """Coefficients of ``FIRST:LAST:STEP`` or of a comma-separated list, ascending and distinct.

    ``0:1:0.1`` is 0 to 1 in steps of 0.1 with both ends, 11 points.

    Raises:
        UserError: The text is neither, a coefficient is outside 0 to 1, or steps miss LAST.
    """
    if ":" not in text:
        return sorted({read_coefficient(part) for part in text.split(",")})
    parts = text.split(":")
    if len(parts) != 3:
        raise UserError(f"sweep {text}: write FIRST:LAST:STEP, such as 0:1:0.1, or a list 0,0.5,1")
    start, stop, step = (read_coefficient(part) for part in parts)
    if step == 0 or stop < start:
        raise UserError(f"sweep {text}: LAST must not be below FIRST, nor STEP 0; write 0:1:0.1")
    steps, rest = divmod(stop - start, step)
    if rest:
        raise UserError(
            f"sweep {text}: steps of {step} from {start} do not end at {stop}; choose a STEP "
            "that does, or list the coefficients with commas"
        )
    if steps >= MAX_POINTS:
        raise UserError(f"sweep {text}: more than {MAX_POINTS} points; take a larger STEP")
    return [start + number * step for number in range(int(steps) + 1)]


def read_coefficient(text: str) -> Decimal:
    """A decimal number from 0 to 1.

    Raises:
        UserError: It is not; beyond the endpoints, variances could be negative.
    """
    try:
        coefficient = Decimal(text.strip())
    except InvalidOperation as error:
        raise UserError(f"coefficient '{text}': not a number; write one such as 0.4") from error
    if not coefficient.is_finite() or not 0 <= coefficient <= 1:
        raise UserError(f"coefficient {text}: must lie between 0 (START) and 1 (FINAL)")
    return coefficient


def coefficient_name(coefficient: Decimal) -> str:
    """``0.0``, ``0.25``, ``1.0``: the shortest form with a decimal, the same in every sweep."""
    digits = f"{abs(coefficient).normalize():f}"
    return digits if "." in digits else f"{digits}.0"


def check_metric(metric: str | None, benchmarks: Collection[str]) -> None:
    """Check the benchmark of a metric before any work.

    Raises:
        UserError: The metric is not BENCHMARK/METRIC/GROUP with one of the benchmarks.
    """
    if metric is not None and metric.split("/")[0] not in benchmarks:
        name = next((one for one in HELD_OUT if one in benchmarks), "")
        headline = next(iter(HELD_OUT[name].headlines)) if name else "accuracy"
        example = f"{name or next(iter(benchmarks), 'sugarcrepe')}/{headline}/all"
        raise UserError(
            f"metric '{metric}': write BENCHMARK/METRIC/GROUP, such as {example}, "
            f"with a benchmark that is measured: {', '.join(benchmarks)}"
        )


def best_point(points: Mapping[str, Sequence[Result]], metric: str | None) -> tuple[str, Result]:
    """Coefficient and row of the highest value; of equal values the first point.

    Args:
        points: Results by coefficient, ascending.
        metric: BENCHMARK/METRIC/GROUP; the first headline by default.

    Raises:
        UserError: There is no such row.
    """
    if metric is None:
        metric = "/".join(headlines(next(iter(points.values())))[0][1])
    scores = [
        (coefficient, row)
        for coefficient, rows in points.items()
        for row in rows
        if "/".join(key_of(row)) == metric
    ]
    if not scores:
        names = ["/".join(key_of(row)) for row in next(iter(points.values()))]
        known = ", ".join(name for name in names if name.endswith("/all"))
        raise UserError(
            f"metric: there is no score '{metric}'{did_you_mean(metric, names)}; there are {known}"
        )
    return max(scores, key=lambda point: -inf if isnan(point[1].value) else point[1].value)


def load_endpoints(start: str, final: str) -> tuple[NamedModel, NamedModel]:
    """Load START and FINAL.

    Raises:
        UserError: A model cannot be loaded, or the models are incompatible.
    """
    last = load_named_model(final)
    first = load_own_start(Path(final)) if start == OWN_START else load_named_model(start)
    for model, other in ((first.model, last.model), (last.model, first.model)):
        if not model.has_bias() and other.has_bias():  # gained by training with the sigmoid loss
            model.train_bias(float(other.logit_bias()))
    if difference := first_difference(first.model, last.model):
        raise UserError(
            f"{first.name} and {last.name} cannot be interpolated: {difference}; give two "
            "models of the same architecture, activation and preprocessing"
        )
    return first, last


def first_difference(start: Clip, final: Clip) -> str | None:
    """The first difference that prevents interpolation; None if there is none."""
    for what, one, other in _compared(start, final):
        if one != other and (one or other):  # a missing setting is the same as False
            return f"{what} is {_shown(one)} in START, {_shown(other)} in FINAL"
    return None


def _compared(start: Clip, final: Clip) -> Iterator[tuple[str, Any, Any]]:
    """(name, start's value, final's value) of everything that must be equal."""
    configs = [
        {name: value for name, value in _flat(model.config["model_cfg"], "") if name != SCALE}
        for model in (start, final)
    ]
    yield from _merged("model_cfg.", *configs)
    views = [json.loads(json.dumps(asdict(model.image_settings))) for model in (start, final)]
    yield from _merged("preprocessing ", *views)
    shapes = [
        {name: str(list(tensor.shape)) for name, tensor in model.state_by_open_clip_name().items()}
        for model in (start, final)
    ]
    yield from _merged("shape of ", *shapes)


def _merged(
    what: str, start: dict[str, Any], final: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys((*start, *final)):
        yield f"{what}{name}", start.get(name), final.get(name)


def _flat(settings: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)


ORIGIN_NAME = "origin.json"
"""Endpoints and coefficient."""


def save_interpolated(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    config: dict[str, Any],
    origin: Mapping[str, Any],
    text_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write an interpolated model atomically as a folder in open_clip's local-dir layout.

        FOLDER/{model.safetensors, open_clip_config.json, origin.json}

    It takes the place of a folder that ``refuse_existing`` lets pass. There is no optimizer state:
    the model can be evaluated or be the start of a training.

    Args:
        folder: Folder to create.
        weights: Parameters and buffers by open_clip's names, on the CPU.
        config: Content of open_clip_config.json.
        origin: JSON values of origin.json.
        text_files: Files of a Hugging Face text tower, see ``Clip.text_files``.

    Raises:
        UserError: The disk is full or cannot be written.
    """
    with writing(folder, errors=(OSError, SafetensorError)), atomic_folder(folder) as partial:
        files = CheckpointFiles({WEIGHTS_NAME: dict(weights)}, config, {}, text_files or {})
        write_files(partial, files, folder)
        names = sorted(path.name for path in partial.iterdir())
        content = json.dumps({**origin, "files": names}, indent=2)
        atomic_write(partial / ORIGIN_NAME, content.encode())


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Refuse to replace a folder, unless it holds interpolated weights and may be overwritten.

    Raises:
        UserError: The folder exists and must not be replaced.
    """
    if not folder.exists():
        return
    if not overwrite:
        raise UserError(f"{folder}: exists; choose another --save-to, or add --overwrite")
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != _ours(folder):
        raise UserError(
            f"{folder}: holds other files than interpolated weights, so it is not overwritten; "
            "choose another --save-to"
        )


def _ours(folder: Path) -> set[str]:
    """Names of the files of an interpolated model, as origin.json lists them."""
    try:
        listed = json.loads((folder / ORIGIN_NAME).read_bytes())["files"]
        return {*map(str, listed), ORIGIN_NAME}
    except (OSError, ValueError, KeyError, TypeError):
        return {WEIGHTS_NAME, CONFIG_NAME, ORIGIN_NAME}


MAX_KEPT_BYTES = 4 * 2**30
"""Decoded images kept in memory: 28,000 of 224 pixels on a side."""


def interpolate(config: InterpolateConfig) -> None:
    """Measure interpolated models, or write one as a checkpoint folder, or both.

    Raises:
        UserError: A model cannot be loaded, the endpoints are incompatible, shards, a benchmark or
            the metric do not exist, the sweep is malformed, or an output cannot be written or
            exists.
    """
    coefficients = read_sweep(config.sweep)
    saved = None if config.save is None else read_coefficient(config.save)
    if config.save_to is not None:
        refuse_existing(config.save_to, config.overwrite)
    inputs = None if config.out is None else read_inputs(config)
    check_metric(config.metric, inputs.versions if inputs else {})
    endpoints = _Endpoints(config)
    if inputs is not None and config.out is not None:
        sweep = _Sweep(endpoints, inputs, config, config.out)
        coefficient, best = best_point(sweep.measure(coefficients), config.metric)
        files = {coefficient_name(one): sweep.file(one) for one in coefficients}
        name = "/".join(key_of(best))
        print(f"{config.start} to {config.final}\n\n{sweep_table(files, config.seed)}\n")
        difference = difference_to_first(files, coefficient, key_of(best), config.seed)
        print(f"highest {name}: {best.value:.4f} at {coefficient}{difference}")
    # Last, so that an interrupted sweep can be repeated.
    if saved is not None and config.save_to is not None:
        endpoints.save(saved, config.save_to)


class _Endpoints:
    """The weights of both endpoints, and one model that takes interpolated weights."""

    def __init__(self, config: InterpolateConfig) -> None:
        start, final = load_endpoints(config.start, config.final)
        self._start, self._final = own_state(start.model), own_state(final.model)
        self.model = final.model.eval()
        self.name = config.name or final.name
        self._interpolation = Interpolation(
            config.start,
            config.final,
            "",
            state_sha256(self._start, start.model.config),
            state_sha256(self._final, final.model.config),
        )

    def at(self, coefficient: Decimal) -> State:
        """Interpolated weights."""
        return interpolated(self._start, self._final, coefficient)

    def interpolation(self, coefficient: Decimal) -> Interpolation:
        """Record of an interpolated model, for files."""
        name = coefficient_name(coefficient)
        return msgspec.structs.replace(self._interpolation, coefficient=name)

    def save(self, coefficient: Decimal, folder: Path) -> None:
        """Write an interpolated model as a checkpoint folder."""
        origin = {"interpolation": msgspec.to_builtins(self.interpolation(coefficient))}
        weights, text_files = self.at(coefficient), self.model.text_files()
        save_interpolated(folder, weights, self.model.config, origin, text_files)
        print(f"wrote {folder}: {coefficient_name(coefficient)} of {self.name}")


@dataclass(frozen=True)
class _Sweep:
    """Points of one pair of endpoints on the same inputs, each in a file of its own."""

    endpoints: _Endpoints
    inputs: EvaluationInputs
    config: InterpolateConfig
    out: Path

    def measure(self, coefficients: Iterable[Decimal]) -> dict[str, list[Result]]:
        """Results by coefficient; existing results are read, others are measured.

        Raises:
            UserError: As ``measure_all``; after the first point if the metric does not exist.
        """
        points = {coefficient: self._read(coefficient) for coefficient in coefficients}
        missing = [coefficient for coefficient, results in points.items() if results is None]
        if missing:
            device, config = local_device(), self.config
            model, name = self.endpoints.model.to(device), self.endpoints.name
            encoder = Encoder(model, device, config.batch, config.workers, name=name)
            image_batches = self._image_batches(encoder, keep=len(missing) > 1)
            for coefficient in missing:
                points[coefficient] = self._measure_point(coefficient, encoder, image_batches)
                best_point({"": points[coefficient] or []}, config.metric)  # does it exist?
        return {coefficient_name(one): results or [] for one, results in points.items()}

    def file(self, coefficient: Decimal) -> Path:
        """Results file of a point."""
        return self.out / f"coefficient-{coefficient_name(coefficient)}.json"

    def _read(self, coefficient: Decimal) -> list[Result] | None:
        """Existing results of a point with the same endpoints, inputs and settings."""
        path = self.file(coefficient)
        if not (path.is_file() and items_path(path).is_file()):
            return None
        results = read_results(path)
        versions = {row.benchmark: row.version for row in results}
        if versions == self.inputs.versions and self._matches(path, coefficient):
            print(f"{path}: measured before, kept")
            return results
        print(f"{path}: of other models, shards or settings; measured again")
        return None

    def _matches(self, path: Path, coefficient: Decimal) -> bool:
        header = read_header(items_path(path))
        if header.interpolation is None:
            return False
        reader, questions = self.inputs.reader, self.inputs.questions
        shards = "" if reader is None else fingerprint(reader.index)
        return (
            _weights(header.interpolation) == _weights(self.endpoints.interpolation(coefficient))
            and header.model == self._name(coefficient)
            and (header.fingerprint, header.seed) == (shards, self.config.seed)
            and {name: fingerprint_of_questions(read) for name, read in questions.items()}
            == {name: coverage.asked for name, coverage in header.sets.items()}
            and self._has_all_questions(header)
        )

    def _has_all_questions(self, header: ItemsHeader) -> bool:
        """Whether a point is on the questions that the others will be on: on all, or on those of
        which the same folders have the images."""
        if not any(coverage.lost for coverage in header.sets.values()):
            return True
        return self.inputs.allow_missing and header.folders == self.inputs.images.folders()

    def _measure_point(
        self, coefficient: Decimal, encoder: Encoder, image_batches: Iterable[ImageBatch] | None
    ) -> list[Result]:
        out, named = self.file(coefficient), replace(encoder, name=self._name(coefficient))
        set_weights(encoder.model, self.endpoints.at(coefficient))
        measured = measure_all(named, self.inputs, out.parent, image_batches)
        interpolation = self.endpoints.interpolation(coefficient)
        header = msgspec.structs.replace(measured.header, interpolation=interpolation)
        # An interruption must not leave new items with old results.
        out.unlink(missing_ok=True)
        write_results(out, measured.results, header, measured.items)
        print(f"wrote {out}")
        return measured.results

    def _name(self, coefficient: Decimal) -> str:
        return f"{self.endpoints.name}@{coefficient_name(coefficient)}"

    def _image_batches(self, encoder: Encoder, *, keep: bool) -> Iterable[ImageBatch] | None:
        """Images of the shards, in memory if they fit and are needed more than once."""
        reader = self.inputs.reader
        if reader is None:
            return None
        image_batches = encoder.read(ShardImages(reader))
        size = len(reader) * 3 * encoder.model.image_settings.size**2
        if not keep or size > MAX_KEPT_BYTES:
            return image_batches
        # Copies, because workers send tensors in shared memory.
        return [ImageBatch(*(tensor.clone() for tensor in batch)) for batch in image_batches]


def _weights(interpolation: Interpolation) -> tuple[str, str, str]:
    """What the weights depend on: not the names of the endpoints."""
    return interpolation.coefficient, interpolation.start_sha256, interpolation.final_sha256


def interpolated(start: State, final: State, coefficient: Decimal) -> dict[str, torch.Tensor]:
    """theta(a) = (1 - a) * start + a * final, tensor by tensor, in float32; 0 and 1 return the
    endpoints bit for bit.

    The temperature is interpolated as its logarithm, running means and variances of batch norms as
    in WiSE-FT's own code. Integers (counts, positions) are those of the final model, except at 0.
    """
    if coefficient in (0, 1):
        return dict(final if coefficient else start)
    return {name: _between(start[name], final[name], float(coefficient)) for name in final}


def _between(start: torch.Tensor, final: torch.Tensor, coefficient: float) -> torch.Tensor:
    if not final.is_floating_point():
        return final
    # lerp leaves equal values unchanged.
    return torch.lerp(start.float(), final.float(), coefficient)
