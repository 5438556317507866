"""A fake server, and captions to reword."""

from collections.abc import Iterator

import pytest

from hnc_ds.captions.generate import generate
from hnc_ds.captions.rewrite import endpoint
from hnc_ds.config import GenerateConfig
from tests.captions.rewrite.fake_server import FakeServer, serving
from tests.captions.rewrite.running import Made
from tests.captions.test_generate import scene_graphs

IMAGES = 10
TYPES = ("attribute", "object", "attribute_subg", "relation_pred", "relation_attr_pred", "swap")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        yield fake


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv(endpoint.KEY_VARIABLE, raising=False)


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    graphs = scene_graphs(folder / "g.json", IMAGES)
    captions = folder / "g.captions.jsonl.gz"
    generate(GenerateConfig(scene_graphs=graphs, out=captions, types=TYPES, workers=1))
    return graphs, captions
