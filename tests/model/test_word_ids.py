"""Token ids are open_clip's own, whatever is written."""

import open_clip
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from hnc_ds.model.text import Tokenizer, WordIds

CLIPS = open_clip.get_tokenizer("ViT-B-32")
NEW = WordIds(CLIPS)
ASCII = st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=40)


@given(st.one_of(ASCII, st.text(max_size=40)))
@example("The man's  DOG can't; it's 12:30 -- <end_of_text> <start_of_text>")
@example(
    "fish &amp; chips &lt;b&gt; &#39;x&#39; & \x1b[1mred\x1b[0m \u201cquoted\u201d caf\u00c3\u00a9"
)
@example("tab\there\nline\x00 null ~!@#$%^*()_+`-=[]{}|\\:\"'<>?,./")
def test_ids_are_those_of_open_clip(caption: str) -> None:
    assert NEW(caption) == CLIPS.encode(caption)


def test_another_clean_function_is_kept() -> None:
    for clean in ("canonicalize", "whitespace"):
        tokenizer = SimpleTokenizer(clean=clean)
        caption = "Two_dogs, and A cat!"
        assert WordIds(tokenizer)(caption) == tokenizer.encode(caption)


@given(st.lists(st.text(max_size=60), max_size=4), st.sampled_from([4, 20, 77]))
def test_rows_are_those_of_open_clip_cut_and_padded_as_it_does(
    captions: list[str], context: int
) -> None:
    expected_TL = CLIPS(captions, context)
    assert torch.equal(Tokenizer(CLIPS, context, trim=False)(captions), expected_TL)
    found_TL = Tokenizer(CLIPS, context, trim=True)(captions)
    assert torch.equal(found_TL, expected_TL[:, : found_TL.shape[1]])
    assert not expected_TL[:, found_TL.shape[1] :].any()
