"""The records that stages exchange in files, as frozen msgspec structs.

Files may come from other programs: decoding checks types and names the offending field.
"""

import msgspec


class Relation(msgspec.Struct, frozen=True):
    """One edge of a scene graph; its subject is the object that contains it."""

    name: str
    """The predicate: 'to the left of', 'holding'."""
    object: str
    """Id of the object at the other end."""


class SceneObject(msgspec.Struct, frozen=True):
    """One annotated object, as in GQA's scene graphs. The box is in pixels, y grows downwards."""

    name: str
    x: int
    y: int
    w: int
    h: int
    attributes: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()


class SceneGraph(msgspec.Struct, frozen=True):
    """The annotations of one image. A fact that is absent need not be false."""

    image_id: str
    width: int
    height: int
    objects: dict[str, SceneObject]


class Negative(msgspec.Struct, frozen=True, omit_defaults=True):
    """A caption that is false of the image and differs minimally from a true one."""

    caption: str
    type: str
    """A name of NEGATIVE_TYPES, of WORD_SWAPS, or a type of the released HNC data."""
    replaced: tuple[str, str] | None = None
    """(words of the positive, their replacement); None if the source does not have them."""
    open_world: bool = False
    """Not proven false, only not annotated as true. Made only on request."""
    objects: tuple[int, ...] = ()
    """The objects it names, as indices into the image's sorted object ids; () if unknown."""
    about: str = ""
    """What it is about: its predicate ('to the left of') or the class of its attribute ('colour');
    empty if neither or unknown."""


class CaptionGroup(msgspec.Struct, frozen=True, omit_defaults=True):
    """A true caption with its hard negatives. Positives are unique in an image."""

    positive: str
    type: str
    """The kind of statement: 'attribute', 'relation', or the released HNC type."""
    negatives: tuple[Negative, ...]
    objects: tuple[int, ...] = ()
    """As in Negative."""
    source: str = ""
    """Origin of its captions: 'rewrite' for a language model; empty for the input."""


class ImageCaptions(msgspec.Struct, frozen=True):
    """One line of captions.jsonl: an image and all its caption groups."""

    image_id: str
    groups: tuple[CaptionGroup, ...]


class TrainingSample(msgspec.Struct, frozen=True):
    """KEY.json of a shard: an image's identity, pixel size, and all its caption groups."""

    image_id: str
    width: int
    height: int
    groups: tuple[CaptionGroup, ...]
    format: int = 1


NOT_GROUPS = frozenset(("all", "mPC", "rPC"))
"""Groups of results that are means; no negative type and no set of images has such a name."""


class Result(msgspec.Struct, frozen=True):
    """One row of a results.json. Values are fractions in [0, 1] unless the metric is a margin."""

    model: str
    benchmark: str
    version: int
    """Version of the measurement; increases when the same model would score differently."""
    metric: str
    group: str
    """'all', or a negative type or category."""
    value: float
    low: float
    high: float
    """Bounds of the 95 % confidence interval."""
    count: int
    """Number of items."""
