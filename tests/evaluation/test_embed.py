"""Each image and caption is encoded once; what cannot be is counted."""

import pytest
import torch

from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation import embed
from hnc_ds.evaluation.embed import embed_texts
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.model.load import load_model
from hnc_ds.shards.reader import ShardReader

CPU = torch.device("cpu")


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_texts_are_encoded_once_and_come_back_in_order(model, monkeypatch, at_once):
    monkeypatch.setattr(embed, "TEXTS_AT_ONCE", at_once)
    captions = ["it is a long text of red", "lime", "so blue"]
    text_TD, too_long = embed_texts(model, captions, CPU)
    assert text_TD.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert sorted(model.encoded) == sorted(captions)
    assert too_long == 0


def test_captions_beyond_the_context_are_counted_and_those_that_just_fit_are_not(model):
    eight, nine = "red " * 8, "red " * 9
    assert embed_texts(model, [eight, nine, "red"], CPU)[1] == 1


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (2, 1), (64, 2)])
def test_images_come_in_the_order_of_the_shards(model, make_shards, batch, workers):
    reader = ShardReader(make_shards({"c": "red", "a": "blue", "b": "lime"}))
    embedded = Encoder(model, CPU, batch, workers).shards(reader)
    colours = [reader.sample(i).groups[0].positive.split()[-1] for i in embedded.samples]
    named = ["red", "lime", "blue"]
    assert [named[i] for i in embedded.image_ND.argmax(dim=1).tolist()] == colours
    assert embedded.samples == (0, 1, 2)
    assert torch.allclose(embedded.image_ND.norm(dim=1), torch.ones(3))


def test_more_than_one_percent_of_damaged_images_is_refused(model, make_shards, damage):
    shards = make_shards({"a": "red", "b": "blue"})
    damage(shards, 1)
    with pytest.raises(UserError, match=r"shard-000000\.tar:b: this image and 0 more of 2 .*1 %"):
        Encoder(model, CPU, 4, 0).shards(ShardReader(shards))


def test_a_rare_damaged_image_is_left_out_and_named(model, make_shards, damage):
    shards = make_shards({f"{i:03d}": "red" for i in range(120)})
    damage(shards, 119)
    embedded = Encoder(model, CPU, 50, 0).shards(ShardReader(shards))
    assert embedded.unreadable == (119,)
    assert embedded.samples == tuple(range(119))
    assert len(embedded.image_ND) == 119


def test_embeddings_of_a_real_model_are_the_same_bits_for_any_batch(make_shards, damage):
    """Also where an image in the middle cannot be decoded."""
    shards = make_shards({f"{i:03d}": ("red", "blue", "lime")[i % 3] for i in range(150)})
    damage(shards, 70)
    clip, reader = load_model(ModelConfig(), seed=0).eval(), ShardReader(shards)
    one, other = (Encoder(clip, CPU, n, 0).shards(reader) for n in (1, 200))
    assert one.samples == other.samples
    assert torch.equal(one.image_ND, other.image_ND)
