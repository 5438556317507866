"""The records that travel between stages. Frozen, no torch, no behaviour beyond their fields.

They are msgspec structs because every one of them is read from or written to a file that
somebody else may have made: decoding checks types and names the path of the offending field.
"""

import msgspec


class Relation(msgspec.Struct, frozen=True):
    """One edge of a scene graph; its subject is the object that owns it."""

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
    """What is annotated about one image. Absence of a fact is not evidence against it."""

    image_id: str
    width: int
    height: int
    objects: dict[str, SceneObject]


class Negative(msgspec.Struct, frozen=True, omit_defaults=True):
    """A caption that is false of the image and differs minimally from a true one."""

    caption: str
    type: str
    """How it was made false: a name of NEGATIVE_TYPES or one of the released HNC types."""
    replaced: tuple[str, str] | None = None
    """(words of the positive, words standing in their place); None where the source is silent."""
    open_world: bool = False
    """Not proven false: nothing annotated says it is true. Written only where asked for."""
    objects: tuple[int, ...] = ()
    """The objects it names, by their places among the image's sorted object ids; () where the
    source is silent."""
    about: str = ""
    """What it turns on: the predicate that it states ('to the left of'), or the class of its
    attribute ('colour'); empty where it is about neither, or the source is silent."""


class CaptionGroup(msgspec.Struct, frozen=True, omit_defaults=True):
    """One true caption and every hard negative made from it. Positives are unique in an image."""

    positive: str
    type: str
    """The kind of statement: 'attribute', 'relation', or the released HNC type."""
    negatives: tuple[Negative, ...]
    objects: tuple[int, ...] = ()
    """As in Negative."""
    source: str = ""
    """Who worded all of its captions: 'rewrite' for a language model; empty for the input's own."""


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


class Result(msgspec.Struct, frozen=True):
    """One row of a results.json. Values are fractions in [0, 1] unless the metric is a margin."""

    model: str
    benchmark: str
    version: int
    """Raised when the same model would now score differently."""
    metric: str
    group: str
    """'all' for the whole set, else a negative type or category."""
    value: float
    low: float
    high: float
    """Ends of the 95 % interval."""
    count: int
    """Items behind the value."""
