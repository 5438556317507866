"""Of which things an image may hold more than are boxed, so that 'no' and numbers are not safe.

The truth of a graph is about what is boxed. "The door is open." is about the door that is boxed;
"There is no open door." is about all doors, and of doors people box one and leave out the next.
"""

from collections.abc import Callable
from functools import lru_cache, partial

from hnc_ds.captions.language.kinds import is_a
from hnc_ds.captions.language.nouns import is_plural, singular
from hnc_ds.captions.negatives.statements import DescribedImage

SCATTERED = frozenset(
    """apartment book bottle box building chimney cone container door fence flag gate house lamp
    leaf letter light logo outlet picture pole post shelf shop sign speaker statue tower umbrella
    vase""".split()
)
"""Last words of names of things that stand about in numbers: who boxes two does not look for the
third."""


def may_be_more(image: DescribedImage) -> Callable[[str], bool]:
    """Whether there may well be more things of a name than are boxed, of any size; a function of
    the name.

    Of things that stand about in numbers, of stuff and parts; of what people wear and of parts of
    bodies, where there are several people or animals; of what is boxed in groups. Never where words
    balance in each image: those graphs may be drawn, and hold everything.
    """
    if image.options.balance == "image":
        return _never
    return partial(_may_be_more, sum(map(_is_body, image.graph.names)) > 1)


def _never(name: str) -> bool:
    return False


@lru_cache(maxsize=1 << 14)
def _may_be_more(several_bodies: bool, name: str) -> bool:
    if _comes_in_numbers(name):
        return True
    return several_bodies and any(is_a(name, group) for group in ("clothing", "body_parts"))


@lru_cache(maxsize=1 << 14)
def _is_body(name: str) -> bool:
    return is_a(name, "people") or is_a(name, "animals")


def _comes_in_numbers(name: str) -> bool:
    if is_plural(name) and singular(name) != name:
        return True
    if is_a(name, "grounds"):
        return False  # there is one floor, one sky
    last = singular(name).rsplit(" ", 1)[-1]
    return last in SCATTERED or any(is_a(name, group) for group in ("stuff", "parts", "groups"))
