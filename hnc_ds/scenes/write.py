"""Write a folder of rendered scenes: images and their exact scene graphs.

    hnc-ds scenes --out data/scenes --train 4000 --val 500 --seed 0

    OUT/train_sceneGraphs.json, OUT/val_sceneGraphs.json   GQA's layout
    OUT/images/t000000.jpg ..., v000000.jpg ...            train and val images
    OUT/scenes.json                                        the settings; written last

Images have the imperfections of a camera: background, hue, light, noise and JPEG quality vary, so
no two red circles have equal pixels. An unfinished folder has the settings in
scenes.unfinished.json; the same command continues it. Existing images are kept, as a scene depends
only on the settings and its number.
"""

import colorsys
import io
import math
import os
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from hnc_ds.atomic_files import atomic_file, atomic_write, remove_leftovers, writing
from hnc_ds.config import ScenesConfig
from hnc_ds.errors import UserError
from hnc_ds.output_lock import only_writer
from hnc_ds.records import SceneObject
from hnc_ds.scenes.geometry import PAD, SHAPES, scene_objects
from hnc_ds.scenes.layout import COLOURS, Scene, Thing, compose
from hnc_ds.worker_processes import map_in_order

RIM = 0.035
"""Width of the darker rim, as a fraction of the box side."""

SHADOW = 0.3
"""Opacity of the soft shadow under each thing."""


def jpeg(scene: Scene, rng: np.random.Generator) -> bytes:
    """Paint a scene and encode it as JPEG with random quality and chroma subsampling."""
    quality = int(rng.integers(78, 97))
    subsampling = int(rng.choice([0, 2]))  # Pillow's codes for 4:4:4 and 4:2:0
    buffer = io.BytesIO()
    Image.fromarray(paint(scene, rng)).save(
        buffer, "JPEG", quality=quality, subsampling=subsampling
    )
    return buffer.getvalue()


def paint(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The image as sRGB, uint8 [size, size, 3]."""
    canvas = _background(scene.size, rng)
    for thing in scene.things:
        _put(canvas, thing, rng)
    canvas *= rng.uniform(0.93, 1.05) * rng.uniform(0.98, 1.02, 3).astype(np.float32)
    sigma = np.float32(rng.uniform(1.0, 5.0))
    canvas += sigma * rng.standard_normal(canvas.shape, dtype=np.float32)
    return canvas.clip(0, 255).astype(np.uint8)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A pale gradient of medium brightness with a faint texture, in contrast to all colours.
    Float32 [size, size, 3]."""
    hue, value = rng.uniform(), rng.uniform(0.58, 0.8)
    corners = [
        colorsys.hsv_to_rgb(
            (hue + rng.uniform(-0.12, 0.12)) % 1,
            rng.uniform(0.04, 0.26),
            float(np.clip(value + rng.uniform(-0.1, 0.1), 0.5, 0.82)),
        )
        for _ in range(4)
    ]
    pixels = (np.array(corners).reshape(2, 2, 3) * 255).round().astype(np.uint8)
    canvas = np.stack(
        [_enlarged(pixels[..., channel].astype(np.float32), size) for channel in range(3)], axis=-1
    )
    return canvas + _texture(size, rng)[..., None]


def _enlarged(grid: np.ndarray, size: int) -> np.ndarray:
    """A small grid of numbers, enlarged smoothly to float32 [size, size]."""
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Faint variations of brightness: cloudy, grainy or woven. Float32 [size, size]."""
    kind = rng.integers(3)
    strength = np.float32(rng.uniform(2, 7))
    if kind < 2:
        cells = int(rng.integers(3, 9)) if kind == 0 else size // 3
        clouds = _enlarged(rng.standard_normal((cells, cells), dtype=np.float32), size)
        return strength * clouds
    angle, period = rng.uniform(0, math.pi), rng.uniform(0.04, 0.12)
    across, along = _grid(size, size, angle)
    waves = np.sin(across * (2 * math.pi / (period * size)))
    waves += np.sin(along * (2 * math.pi / (period * size)))
    return strength * np.float32(0.7) * waves


def _grid(w: int, h: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of each pixel along and across a direction, float32 [h, w] each."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _put(canvas: np.ndarray, thing: Thing, rng: np.random.Generator) -> None:
    """Paint one thing and its soft shadow onto the canvas."""
    mask = thing.sprite.mask
    left, top = thing.box.x - PAD, thing.box.y - PAD
    drop = max(1, round(0.045 * max(thing.box.w, thing.box.h)))
    roomy = Image.new("L", (mask.width + 4 * drop, mask.height + 4 * drop))
    roomy.paste(mask, (2 * drop, 2 * drop))
    shade = np.asarray(roomy.filter(ImageFilter.BoxBlur(drop)), dtype=np.float32) / 255 * SHADOW
    _blend(canvas, np.zeros(3, np.float32), shade, left - drop, top - drop)
    cover = np.asarray(mask, dtype=np.float32) / 255
    _blend(canvas, _surface(thing, rng), cover, left, top)


def _blend(canvas: np.ndarray, colour: np.ndarray, alpha: np.ndarray, left: int, top: int) -> None:
    """Blend colour ([3] or [h, w, 3]) into the canvas by alpha [h, w], clipped to the canvas."""
    size, (h, w) = len(canvas), alpha.shape
    rows = slice(max(0, -top), min(h, size - top))
    columns = slice(max(0, -left), min(w, size - left))
    if colour.ndim == 3:
        colour = colour[rows, columns]
    spot = canvas[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    spot += (colour - spot) * alpha[rows, columns, None]


def _surface(thing: Thing, rng: np.random.Generator) -> np.ndarray:
    """The colours of a thing's padded box, float32 [h, w, 3]: pattern, light and rim."""
    mask = thing.sprite.mask
    colour = _varied(COLOURS[thing.kind.colour], rng)
    luminance = float(colour @ np.array([0.299, 0.587, 0.114], np.float32))
    surface = np.broadcast_to(colour, (mask.height, mask.width, 3))
    if thing.kind.pattern:
        ink = _ink(colour, luminance)
        marks = PAINTED[thing.kind.pattern](mask.width, mask.height, rng)
        surface = surface + (ink - colour) * marks[..., None]
    across, _ = _grid(mask.width, mask.height, math.pi / 4)  # light falls from the upper left
    light = 1.05 - 0.13 * across / max(1.0, float(across.max()))
    radius = max(1.0, RIM * max(thing.box.w, thing.box.h))
    blurred = np.asarray(mask.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32) / 255
    rim = np.clip((0.95 - blurred) / 0.4, 0, 1)[..., None]
    edge = _mixed(colour, 255 if luminance < 60 else 0, 0.36)
    return (surface + (edge - surface) * rim) * light[..., None]


def _ink(colour: np.ndarray, luminance: float) -> np.ndarray:
    """Colour of the pattern: a paler tone of dark colours, a darker one of light colours."""
    if luminance < 150:
        return _mixed(colour, 255, 0.6)
    # Marks on white must not look like holes.
    return _mixed(colour, 0, 0.6 if luminance > 225 else 0.42)


def _varied(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A colour with slightly varied hue, saturation and value, float32 [3]."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    hue = (hue + rng.uniform(-0.012, 0.012)) % 1
    saturation = min(1.0, saturation * rng.uniform(0.9, 1.05))
    value = min(1.0, value * rng.uniform(0.93, 1.05))
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32) * 255


def _mixed(colour: np.ndarray, grey: int, fraction: float) -> np.ndarray:
    return colour + (grey - colour) * np.float32(fraction)


def _stripes(w: int, h: int, rng: np.random.Generator) -> np.ndarray:
    """1 on stripes, 0 between, soft edges: float32 [h, w]."""
    period = rng.uniform(0.3, 0.36) * max(w, h)
    across, _ = _grid(w, h, rng.uniform(0, math.pi))
    wave = np.sin(across * (2 * math.pi / period) + rng.uniform(0, 2 * math.pi))
    return np.clip(0.5 + (wave - 0.2) * (period / 6), 0, 1)


def _dots(w: int, h: int, rng: np.random.Generator) -> np.ndarray:
    """1 on dots, 0 between, soft edges: float32 [h, w]."""
    period = rng.uniform(0.3, 0.36) * max(w, h)
    start_x, start_y = rng.uniform(0, 1, 2)
    across, along = _grid(w, h, rng.uniform(0, math.pi / 2))
    u = (across / period + start_x) % 1 - 0.5
    v = (along / period + start_y) % 1 - 0.5
    return np.clip(0.5 + (0.29 - np.hypot(u, v)) * period, 0, 1)


PAINTED = {"striped": _stripes, "dotted": _dots}
"""Pattern -> function of (width, height, generator) that returns the mask of its marks."""


DRAWING_VERSION = 1
"""Increased when the same settings would give other images or graphs."""

COMPLETE = "scenes.json"
UNFINISHED = "scenes.unfinished.json"
SPLITS = ("train", "val")
CHUNK = 32
"""Scenes per task of a worker."""


class Job(NamedTuple):
    """One scene to make."""

    split: str
    number: int

    @property
    def image_id(self) -> str:
        return f"{self.split[0]}{self.number:06d}"


class Made(NamedTuple):
    """The result for one scene."""

    entry: bytes
    """Its member of the JSON file."""
    relations: int


def write_scenes(config: ScenesConfig) -> None:
    """Write the images and scene graphs of both splits, or continue an interrupted call.

    The bytes depend only on the settings. A complete folder of the same settings is not changed.

    Raises:
        UserError: The folder holds something else or cannot be written, another process writes it,
            or there are fewer shapes or colours than requested.
    """
    _check_stock(config)
    settings = _settings(config)
    if _is_complete(config, settings):
        print(f"scenes: {config.out} holds these scenes already; nothing to do")
        return
    with only_writer(config.out):
        _write(config, settings)


def _write(config: ScenesConfig, settings: bytes) -> None:
    with writing(config.out, "run the same command again, it continues where it stopped"):
        (config.out / "images").mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            remove_leftovers(config.out / _graphs_name(split), alone=True)
        atomic_write(config.out / UNFINISHED, settings)
        relations = _write_splits(config)
        os.replace(config.out / UNFINISHED, config.out / COMPLETE)
    print(
        f"scenes: {config.train} train and {config.val} val images of {config.size} px "
        f"in {config.out} ({relations} relations)"
    )


def _check_stock(config: ScenesConfig) -> None:
    for name, count, stock in (
        ("shapes", config.shapes, SHAPES),
        ("colours", config.colours, COLOURS),
    ):
        if count > len(stock):
            raise UserError(f"{name} is {count}; there are {len(stock)}: {', '.join(stock)}")


def _settings(config: ScenesConfig) -> bytes:
    """Everything the bytes depend on, as JSON."""
    settings = {"drawing_version": DRAWING_VERSION} | asdict(config)
    del settings["out"], settings["workers"]
    return msgspec.json.format(msgspec.json.encode(settings))


def _is_complete(config: ScenesConfig, settings: bytes) -> bool:
    """Whether the folder holds exactly these scenes; False if they can be written there.

    Raises:
        UserError: It holds other files or scenes of other settings.
    """
    out = config.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return False
    marker = next((out / m for m in (COMPLETE, UNFINISHED) if (out / m).is_file()), None)
    if marker is None:
        raise UserError(f"{out}: holds no scenes but other files; give another folder with --out")
    if marker.read_bytes() != settings:
        raise UserError(
            f"{marker}: the scenes there have other settings; "
            "give another folder with --out, or remove this one"
        )
    names = {f"{job.image_id}.jpg" for split in SPLITS for job in _jobs(config, split)}
    return (
        marker.name == COMPLETE
        and all((out / _graphs_name(split)).is_file() for split in SPLITS)
        and (out / "images").is_dir()
        and names <= set(os.listdir(out / "images"))
    )


def _graphs_name(split: str) -> str:
    return f"{split}_sceneGraphs.json"


def _jobs(config: ScenesConfig, split: str) -> list[Job]:
    return [Job(split, number) for number in range(getattr(config, split))]


def _write_splits(config: ScenesConfig) -> int:
    """Write the missing images and both JSON files; returns the number of relations."""
    jobs = chain.from_iterable(_jobs(config, split) for split in SPLITS)
    chunks = iter(lambda: list(islice(jobs, CHUNK)), [])
    workers = min(config.workers, (config.train + config.val) // CHUNK)
    scenes = chain.from_iterable(
        map_in_order(partial(_make_chunk, config), chunks, workers, config.out)
    )
    relations = 0
    with tqdm(total=config.train + config.val, desc="scenes", disable=None) as progress:
        for split in SPLITS:
            with atomic_file(config.out / _graphs_name(split)) as file:
                separator = b"{\n"
                for made in islice(scenes, getattr(config, split)):
                    file.write(separator + made.entry)
                    separator = b",\n"
                    relations += made.relations
                    progress.update()
                file.write(b"\n}\n" if separator == b",\n" else b"{}\n")
    return relations


def _make_chunk(config: ScenesConfig, jobs: list[Job]) -> list[Made]:
    return [_make(config, job) for job in jobs]


def _make(config: ScenesConfig, job: Job) -> Made:
    """Compose a scene, paint it unless its image exists, and encode its graph."""
    scene = compose(config, _generator(config.seed, job, stage=0))
    image = config.out / "images" / f"{job.image_id}.jpg"
    if not _is_whole(image):
        part = image.with_suffix(".part")
        part.write_bytes(jpeg(scene, _generator(config.seed, job, stage=1)))
        os.replace(part, image)
    objects = graph(scene, job.image_id)
    entry = {"width": scene.size, "height": scene.size, "objects": objects}
    return Made(
        msgspec.json.encode(job.image_id) + b":" + msgspec.json.encode(entry),
        sum(len(thing.relations) for thing in objects.values()),
    )


def _generator(seed: int, job: Job, stage: int) -> np.random.Generator:
    """An independent random stream for each (seed, split, number, stage)."""
    key = np.array([seed, SPLITS.index(job.split)], dtype=np.uint64)
    counter = np.array([0, 0, stage, job.number], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def graph(scene: Scene, image_id: str) -> dict[str, SceneObject]:
    """The exact scene graph's objects by id, in the scene's random order."""
    place = {thing: i for i, thing in enumerate(scene.order)}
    things = [scene.things[i] for i in scene.order]
    return scene_objects(
        ids=[f"{image_id}-{i}" for i in range(len(things))],
        names=[thing.kind.name for thing in things],
        attributes=[
            [word for word in (thing.kind.colour, thing.kind.pattern) if word] for thing in things
        ],
        boxes=[thing.box for thing in things],
        facts=[
            fact._replace(subject=place[fact.subject], object=place[fact.object])
            for fact in scene.facts
        ],
        size=scene.size,
    )


def _is_whole(image: Path) -> bool:
    """Whether an image exists up to JPEG's end marker."""
    try:
        return image.read_bytes()[-2:] == b"\xff\xd9"
    except FileNotFoundError:
        return False
