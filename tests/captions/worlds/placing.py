"""Where things of the drawn worlds are put, and what is then true between them."""

import random
from typing import NamedTuple

from tests.captions.worlds.lexicon import words

WIDTH, HEIGHT = 800, 600

Box = tuple[int, int, int, int]
"""x, y, w, h; y grows downwards."""

_LARGE = {"grounds", "structures", "backdrops", "skies", "tables"}


class Attachment(NamedTuple):
    """How a new thing goes with one that is there already, its host."""

    name: str
    new: tuple[str, ...]
    """Groups or kinds."""
    hosts: tuple[str, ...]
    sure: tuple[str, ...] = ()
    """What the new thing does to its host, ..."""
    arguable: tuple[str, ...] = ()
    sure_back: tuple[str, ...] = ()
    """... and the host to it."""
    arguable_back: tuple[str, ...] = ()


_THINGS = ("things", "containers", "food")
_LIVING = ("people", "animals")
_UPON = words("above, over, on top of, touching")
_BELOW = words("below, under, underneath, beneath")

ATTACHMENTS = (
    Attachment(
        "on", (*_THINGS, "cat"), ("tables", "seats", "box", "book", "plate"),
        ("on", "on top of"), words("above, over, sitting on, standing on, lying on"),
        (), _BELOW,
    ),
    Attachment(
        "inside", ("food", "book", "ball", "flower", "cat"), ("containers",),
        ("inside", "in"), words("on, sitting in, lying in, standing in"),
        (), words("filled with, around, holding"),
    ),
    Attachment(
        "inside", ("people",), ("vehicles",),
        ("inside", "in"), words("on, sitting in, standing in, riding"), (), words("carrying"),
    ),
    Attachment(
        "wearing", ("clothing",), ("people",),
        ("worn on", "on"), words("on top of, above, around"),
        ("wearing",), words("in, holding, carrying, behind, with"),
    ),
    Attachment(
        "holding", (*_THINGS, "boards"), ("people",),
        (), words("in, on, above, in front of"),
        ("holding",), words("carrying, with, behind, playing with, eating"),
    ),
    Attachment(
        "riding", ("people",), ("horse", "cycles", "boards", "vehicles"),
        ("riding", "on"), words("sitting on, standing on, on top of, above, over, in, inside"),
        (), (*_BELOW, "carrying"),
    ),
    Attachment(
        "sitting on", _LIVING, ("seats", "grounds"),
        ("sitting on", "on"), (*_UPON, *words("in, sitting in, inside")), (), _BELOW,
    ),
    Attachment(
        "lying on", _LIVING, ("bed", "couch", "grounds"),
        ("lying on", "on"), (*_UPON, *words("in, lying in, inside")), (), _BELOW,
    ),
    Attachment(
        "standing on", _LIVING, ("grounds", "boards"),
        ("standing on", "on"),
        (*_UPON, *words("in, standing in, walking on, riding, inside")), (), _BELOW,
    ),
    Attachment(
        "walking on", _LIVING, ("grounds",),
        ("walking on", "on"), (*_UPON, *words("in, standing on, standing in")), (), _BELOW,
    ),
    Attachment(
        "under", ("animals", "things", "stool"), ("tables", "umbrella", "bench"),
        ("under", "below", "underneath", "beneath"),
        words("sitting under, standing under, lying under, behind, in front of"),
        ("above",), words("over, on, on top of"),
    ),
    Attachment(
        "hanging on", ("picture", "clock", "sign"), ("wall", "fence", "pole"),
        ("hanging on", "on"), words("above, in front of, over"), (), words("behind, below, under"),
    ),
    Attachment(
        "parked on", ("vehicles", "cycles"), ("street", "road"),
        ("parked on", "on"), (*_UPON, "in"), (), _BELOW,
    ),
    Attachment(
        "eating", ("food",), _LIVING,
        (), words("on, in front of, above"),
        ("eating",), words("holding, carrying, behind, with, touching"),
    ),
    Attachment(
        "covering", ("covers",), ("tables", "seats"),
        ("covering", "on"), words("on top of, above, over, draped over, lying on, wrapped around"),
        ("covered by",), words("below, under, underneath, beneath, covered in, covered with, in"),
    ),
    Attachment(
        "leaning", ("people", "cycles", "boards"), ("wall", "fence", "pole", "tree"),
        ("leaning against", "leaning on"),
        words("on, attached to, in front of, behind, resting on, standing against"),
        (), words("behind, in front of, holding"),
    ),
    Attachment(
        "mounted", ("tv", "clock", "lamp", "sign", "picture"), ("wall", "building", "pole"),
        ("mounted on", "attached to", "on"),
        words("hanging on, in front of, connected to, displayed on"),
        (), words("behind, below, under, holding"),
    ),
    Attachment(
        "hanging from", ("lamp", "bag", "leash", "basket"), ("tree", "pole", "shelf"),
        ("hanging from",),
        words("on, attached to, hanging on, under, below, in, in front of, tied to, connected to"),
        (), words("above, over, holding, behind"),
    ),
    Attachment(
        "growing", ("plants",), ("grass", "field", "sand"),
        ("growing in", "growing on", "in", "on"),
        (*_UPON, *words("standing in, standing on, inside")), (), (*_BELOW, "around"),
    ),
    Attachment(
        "perched on", ("bird",), ("fence", "pole", "tree", "sign", "bench"),
        ("perched on", "on"), (*_UPON, *words("sitting on, standing on, in, sitting in, inside")),
        (), _BELOW,
    ),
    Attachment(
        "grazing", ("horse", "cow", "zebra", "sheep"), ("grass", "field"),
        ("grazing in", "grazing on", "in", "on"),
        (*_UPON, *words("standing in, standing on, walking in, walking on, eating, inside")),
        (), _BELOW,
    ),
    Attachment(
        "swimming in", ("duck", "people", "dog"), ("water",),
        ("swimming in", "in"),
        (*_UPON, *words("on, floating in, floating on, surfing in, wading in")),
        (), (*_BELOW, "covering"),
    ),
    Attachment(
        "floating", ("boats", "duck"), ("water",),
        ("floating in", "in", "on"),
        (*_UPON, *words("floating on, swimming in, inside, docked in, parked in, parked on")),
        (), _BELOW,
    ),
    Attachment(
        "flying", ("bird", "kite"), ("sky",),
        ("flying in", "in"), words("on, against, above, over, in front of, below, inside"),
        (), words("behind, above, below, over"),
    ),
    Attachment(
        "driving", ("vehicles",), ("street", "road"),
        ("driving on", "driving down", "on"), (*_UPON, *words("in, crossing")), (), _BELOW,
    ),
    Attachment(
        "walking down", ("people",), ("street", "road", "sidewalk"),
        ("walking down", "walking on", "on"),
        (*_UPON, *words("in, crossing, standing on, standing in, walking in, running on")),
        (), _BELOW,
    ),
    Attachment(
        "crossing", ("people", "animals"), ("street", "road"),
        ("crossing", "walking on", "on", "in"),
        (*_UPON, *words("standing on, standing in, walking in, running on, entering, leaving")),
        (), _BELOW,
    ),
    Attachment(
        "lying on", ("people", "animals"), ("bed", "couch"),
        ("sleeping on", "lying on", "on"),
        (*_UPON, *words("in, lying in, sleeping in, inside, resting on")), (), _BELOW,
    ),
    *(
        Attachment(
            "holding", new, ("people",), (), words("in, on, above, in front of, touching"),
            (deed, "holding") if deed in ("swinging", "holding onto") else (deed,),
            words(
                "holding, holding onto, carrying, with, behind, playing with, reaching for, "
                "opening, touching, using, grabbing, picking up, looking at, playing, cleaning"
            ) + also,
        )
        for deed, new, also in (
            ("using", ("laptop", "cell phone"), words("typing on, talking on, closing")),
            ("reading", ("book", "newspaper"), words("closing, cutting, typing on")),
            ("drinking", ("cup", "glass", "bottle"), words("eating, pouring, licking")),
            ("cutting", ("cake", "pizza", "bread"), words("eating, slicing, cooking, biting")),
            ("throwing", ("ball", "frisbee"), words("tossing, catching, swinging, hitting")),
            ("catching", ("ball", "frisbee"), words("throwing, tossing, hitting")),
            ("kicking", ("ball",), words("hitting")),
            ("hitting", ("ball",), words("swinging, throwing, tossing, catching")),
            ("swinging", ("bat", "racket"), words("throwing, hitting, tossing")),
            ("talking on", ("cell phone",), words("typing on")),
            ("holding onto", (*_THINGS, "leash"), words("swinging, tying")),
        )
    ),
    *(
        Attachment(
            "beside", ("animals",), ("people", "animals"), (),
            words("in front of, behind, touching, near, leaning on, looking at"),
            (deed,),
            words(
                "touching, holding, holding onto, with, playing with, looking at, behind, leading, "
                "in front of, brushing, hugging, kissing, petting, feeding, chasing, licking, "
                "biting, sniffing, following, leaning on, washing, cleaning, reaching for, "
                "leaning over"
            ),
        )
        for deed in ("petting", "feeding", "licking", "chasing")
    ),
    Attachment(
        "inside", ("people",), ("car", "taxi", "truck", "bus"),
        ("driving", "in", "inside"),
        words("on, sitting in, standing in, riding, riding in, riding on"), (), words("carrying"),
    ),
    Attachment(
        "leaning", ("bicycle", "boat", "dog", "horse"), ("pole", "tree", "fence"),
        ("tied to",),
        words("attached to, chained to, connected to, leaning on, leaning against, on"),
        (), words("behind, in front of, holding"),
    ),
    Attachment(
        "wearing", ("scarf",), ("people",),
        ("wrapped around", "worn around", "worn on", "on"),
        words("on top of, above, tied around, covering, around"),
        ("wearing",), words("in, holding, carrying, behind, with, wrapped in, covered by"),
    ),
    Attachment(
        "inside", ("picture", "sign"), ("shirt", "bag", "truck", "bus", "box"),
        ("printed on", "painted on", "on"),
        words("in, attached to, drawn on, displayed on, sewn on, covering, stuck on"),
        (), words("covered by, covered in, covered with, containing, filled with, full of"),
    ),
    Attachment(
        "inside", ("food", "flower"), ("containers",),
        ("in", "inside"),
        words("on, sitting in, lying in, standing in, stuck in, served on, displayed on"),
        ("filled with", "full of", "containing"), words("around, holding, carrying, topped with"),
    ),
    Attachment(
        "on", ("food",), ("pizza", "cake", "plate"),
        ("on", "on top of"),
        words("above, over, sitting on, lying on, served on, resting on, piled on, covering, in"),
        ("topped with",), words("below, under, covered by, covered with, covered in, filled with"),
    ),
    Attachment(
        "on", ("things", "containers"), ("book", "box", "tables", "shelf"),
        ("resting on", "on"),
        words("above, over, on top of, sitting on, standing on, lying on, stacked on, leaning on"),
        (), _BELOW,
    ),
    Attachment(
        "on", ("book", "box", "plate"), ("book", "box", "plate"),
        ("stacked on", "on", "on top of"),
        words("above, over, resting on, sitting on, lying on, piled on"), (), _BELOW,
    ),
    Attachment(
        "at", ("people",), ("tables",),
        ("sitting at",), words("behind, in front of, next to, leaning on, on, at, touching"),
        (), words("in front of, behind, touching"),
    ),
    Attachment(
        "parked in", ("vehicles", "cycles"), ("field", "grass", "snow"),
        ("parked in", "in", "on"), (*_UPON, *words("parked on, standing in, standing on")),
        (), _BELOW,
    ),
    Attachment(
        "of", ("parts",), (*_LIVING, "vehicles", "tables"),
        ("of",), words("on, in, under, in front of"),
        (), words("with, behind"),
    ),
)  # fmt: skip


def drawn_box(rng: random.Random, group: str) -> Box:
    largest = (500, 350) if group in _LARGE else (260, 240)
    w, h = (rng.randint(12 if side < 300 else 60, side) for side in largest)
    return rng.randint(0, WIDTH - w), rng.randint(0, HEIGHT - h), w, h


def place(rng: random.Random, how: str, box: Box, host: Box) -> Box | None:
    """The box where it belongs; None if there is no room for it in the image."""
    x, y, w, h = host
    own_w, own_h = box[2], box[3]
    if how in ("inside", "wearing", "of", "hanging on", "mounted", "flying", "swimming in"):
        own_w, own_h = max(2, min(own_w, w // 2)), max(2, min(own_h, h // 2))
        return x + rng.randint(0, w - own_w), y + rng.randint(0, h - own_h), own_w, own_h
    if how in ("holding", "eating", "leaning", "beside", "at"):
        own_w, own_h = max(2, min(own_w, w)), max(2, min(own_h, h))
        beside = rng.choice([x - own_w // 2, x + w - own_w // 2])
        return _in_image(beside, y + rng.randint(0, h - own_h), own_w, own_h)
    own_w = max(2, min(own_w, w))
    left = x + rng.randint(0, w - own_w)
    if how in ("under", "hanging from"):
        own_h = max(2, min(own_h, h))
        return _in_image(left, y + h - own_h // 4, own_w, own_h)
    return _in_image(left, y - own_h + min(own_h, h) // 4, own_w, own_h)


def _in_image(x: int, y: int, w: int, h: int) -> Box | None:
    x = max(0, min(x, WIDTH - w))
    return (x, y, w, h) if y >= 0 and y + h <= HEIGHT else None


def centre(box: Box) -> tuple[float, float]:
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def gap(a: Box, b: Box) -> int:
    """Pixels between two boxes; negative where they overlap."""
    gap_x = max(a[0], b[0]) - min(a[0] + a[2], b[0] + b[2])
    gap_y = max(a[1], b[1]) - min(a[1] + a[3], b[1] + b[3])
    return max(gap_x, gap_y)


def hull(boxes: list[Box]) -> Box:
    """The smallest box around all."""
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    return left, top, right - left, bottom - top
