"""What pairs of boxes show."""

from hypothesis import given
from hypothesis import strategies as st

from hnc_ds.captions.truth.boxes import DOUBLE, Box, nearly_one, places

SIDES = st.integers(1, 12)
BOXES = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), st.integers(0, 3), st.integers(0, 3), SIDES, SIDES
)


@given(a=BOXES, b=BOXES)
def test_a_single_pair_is_judged_as_among_all_pairs(a: Box, b: Box) -> None:
    assert nearly_one(a, b) == bool(places([a, b], 20, 20)[0, 1] & DOUBLE)


def test_boxes_that_share_more_than_three_quarters_of_their_union_are_nearly_one() -> None:
    whole = Box(0, 0, 100, 100)
    assert nearly_one(whole, Box(0, 0, 76, 100))
    assert not nearly_one(whole, Box(0, 0, 75, 100))
    assert not nearly_one(whole, Box(200, 0, 300, 100))
