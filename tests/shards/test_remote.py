"""Shards behind a URL are read as if they lay here: over HTTP, and from an S3-compatible server."""

import fcntl
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from hnc_ds.config import DataConfig, ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.model.load import load_model
from hnc_ds.shards import remote
from hnc_ds.shards.contents import verify
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.shards.pack import pack
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.remote import Cache, RemoteFolder, cache_of, check_url, is_url
from hnc_ds.training.feed import batches

from .conftest import PackInput

IDS = [f"image-{number:02}" for number in range(24)]


class Server(ThreadingHTTPServer):
    """Serves a folder and records the requests; each of ``hurts`` goes wrong once."""

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(Handler, directory=str(folder))
        super().__init__(("127.0.0.1", 0), handler)
        self.asked: list[str] = []
        self.hurts: list[str] = []
        self.hurt_suffix = ".tar"
        self.refuses = 0
        self.sent = 0
        self.gone = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """Clients that went away are what some tests are about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, name: str) -> int:
        return sum(path.endswith(name) for path in self.asked)


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.refuses:
            self.send_error(self.server.refuses)
        elif self.path.endswith(self.server.hurt_suffix) and self.server.hurts:
            getattr(self, self.server.hurts.pop(0))()
        else:
            super().do_GET()

    def _body(self) -> bytes:
        return Path(self.translate_path(self.path)).read_bytes()

    def breaks_off(self) -> None:
        body = self._body()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def is_short(self) -> None:
        self._send(self._body()[:-512])

    def is_wrong(self) -> None:
        body = bytearray(self._body())
        body[700] ^= 1
        self._send(bytes(body))

    def is_longer(self) -> None:
        self._send(self._body() + bytes(512))

    def has_no_end(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while True:  # until the reader is gone
            self.wfile.write(b" " * 2**16)
            self.server.sent += 2**16

    def takes_a_minute(self) -> None:
        body = self._body()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1000])
        self.server.gone.wait(60)

    def is_busy(self) -> None:
        self.send_error(503)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def packed(packing: PackInput) -> Path:
    """Six shards of four."""
    packing.write(IDS)
    pack(packing.config())
    return packing.folder / "out"


@pytest.fixture
def server(packed: Path) -> Iterator[Server]:
    serving = Server(packed)
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield serving
    serving.gone.set()
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10**9)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait, which is skipped."""
    found: list[float] = []
    original = RemoteFolder.__init__
    monkeypatch.setattr(
        RemoteFolder, "__init__", lambda self, url, at: original(self, url, at, found.append)
    )
    return found


def everything(reader: ShardReader) -> list[Any]:
    return [(reader.key(n), reader.sample(n), reader.image_bytes(n)) for n in range(len(reader))]


def test_samples_behind_a_url_are_those_of_the_folder(
    packed: Path, server: Server, cache: Cache
) -> None:
    far = ShardReader(f"{server.url}/", cache)
    assert everything(far) == everything(ShardReader(packed))
    assert far.where(5) == f"{server.url}/shard-000001.tar:{IDS[5]}"
    assert verify(far) == (6, 24)
    assert server.count("shard-000003.tar") == 1
    assert everything(ShardReader(server.url, cache)) == everything(far)
    assert server.count("shard-000003.tar") == 1  # kept for the next time


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_and_their_order_are_those_of_the_folder(
    workers: int, packed: Path, server: Server, cache: Cache
) -> None:
    clip = load_model(ModelConfig(), seed=0)

    def drawn(location: Path | str) -> list[Batch]:
        data = DataConfig(shuffle_shards=2, cache=cache.folder, cache_gb=1, unrelated_negatives=1)
        views = (clip.image_settings, clip.tokenize)
        training = TrainingData(location, data, 0, 8, range(8), *views)
        return [b for b in batches(training, range(7), workers, pin=False) if isinstance(b, Batch)]

    here, there = drawn(packed), drawn(server.url)
    assert len(here) == len(there) == 7
    for ours, theirs in zip(here, there, strict=True):
        for name, part in ours._asdict().items():
            other = getattr(theirs, name)
            assert torch.equal(part, other) if torch.is_tensor(part) else part == other, name


def test_a_folder_and_a_url_are_mixed_as_two_folders_are(
    packed: Path, scene_shards: Path, server: Server, cache: Cache
) -> None:
    clip = load_model(ModelConfig(), seed=0)
    views = (clip.image_settings, clip.tokenize)

    def drawn(*folders: str) -> list[Batch]:
        settings = {"shuffle_shards": 2, "cache": cache.folder, "cache_gb": 1}
        data = DataConfig(shards=folders, mix=(3, 1), **settings)  # type: ignore[arg-type]
        training = TrainingData(folders, data, 0, 8, range(8), *views)
        return [b for b in batches(training, range(5), 1, pin=False) if isinstance(b, Batch)]

    val = str(scene_shards / "val")
    here, there = drawn(str(packed), val), drawn(server.url, val)
    assert len(here) == len(there) == 5
    for ours, theirs in zip(here, there, strict=True):
        assert torch.equal(ours.image_index_B, theirs.image_index_B)
        assert torch.equal(ours.images_B3RR, theirs.images_B3RR)
        assert torch.equal(ours.token_TL, theirs.token_TL)


def test_the_next_shards_are_fetched_ahead(server: Server, cache: Cache) -> None:
    reader = ShardReader(server.url, cache)
    reader.fetch_ahead([3, 1])
    until = time.monotonic() + 20
    while len(list(reader.folder.glob("*.tar"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert {path.name for path in reader.folder.glob("*.tar")} == {
        "shard-000001.tar",
        "shard-000003.tar",
    }


@pytest.mark.parametrize(("share", "fetched"), [(1.0, 2), (0.5, 1)])
def test_no_more_is_fetched_ahead_than_half_of_a_share_of_the_cache(
    share: float, fetched: int, packed: Path, server: Server, tmp_path: Path
) -> None:
    size = (packed / "shard-000000.tar").stat().st_size
    reader = ShardReader(server.url, Cache(tmp_path / "cache", int(4.5 * size)))
    reader.fetch_ahead(range(6), share)
    time.sleep(1)
    assert len(list(reader.folder.glob("*.tar"))) == fetched


def test_the_cache_stays_below_its_size_and_what_is_open_stays_readable(
    packed: Path, server: Server, tmp_path: Path
) -> None:
    tars = sorted(packed.glob("*.tar"))
    most = int(2.5 * max(tar.stat().st_size for tar in tars))
    reader, expected = ShardReader(server.url, Cache(tmp_path / "cache", most)), ShardReader(packed)
    for sample in (0, 5, 9, 13, 0, 17, 21, 0, 5):
        assert reader.image_bytes(sample) == expected.image_bytes(sample)
        kept = list((tmp_path / "cache").glob("*/*.tar"))
        assert sum(tar.stat().st_size for tar in kept) <= most
    assert server.count(".tar") == 6  # all of them are open
    reader.close()
    assert reader.image_bytes(1) == expected.image_bytes(1)
    assert server.count("shard-000000.tar") == 2


def test_a_shard_that_the_cache_cannot_hold_is_refused(server: Server, tmp_path: Path) -> None:
    reader = ShardReader(server.url, Cache(tmp_path / "cache", 1000))
    with pytest.raises(UserError, match=r"more than the cache may hold .* --cache_gb"):
        reader.sample(0)


@pytest.mark.parametrize("hurt", ["breaks_off", "is_short", "is_wrong", "is_busy"])
def test_what_goes_wrong_for_a_while_is_tried_again(
    hurt: str, packed: Path, server: Server, cache: Cache, waits: list[float]
) -> None:
    reader = ShardReader(server.url, cache)
    server.hurts = [hurt, hurt]
    assert reader.image_bytes(0) == ShardReader(packed).image_bytes(0)
    assert len(waits) == 2
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0
    assert not list(reader.folder.glob("*.tmp"))


@pytest.mark.parametrize(
    ("hurt", "reason"), [("is_short", "bytes came, the index has"), ("is_wrong", "sha256")]
)
def test_what_stays_wrong_is_one_line(
    hurt: str, reason: str, server: Server, cache: Cache, waits: list[float]
) -> None:
    reader = ShardReader(server.url, cache)
    server.hurts = [hurt] * 100
    with pytest.raises(UserError, match=f"could not be fetched in {remote.TRIES} tries .*{reason}"):
        reader.sample(0)
    assert len(waits) == remote.TRIES - 1
    assert max(waits) <= remote.LONGEST_WAIT
    assert not list(reader.folder.glob("shard-000000.tar*"))


@pytest.mark.parametrize(
    ("name", "hurt", "reason"),
    [
        (".tar", "is_longer", r"shard-000000\.tar: more than the [\d,]+ bytes of the index"),
        (".tar", "has_no_end", r"shard-000000\.tar: more than the [\d,]+ bytes of the index"),
        ("index.json", "has_no_end", r"index\.json: more than 67,108,864 bytes, not an index"),
        ("000000.json", "has_no_end", r"0\.json: more than 67,108,864 bytes, not an index"),
    ],
)
def test_what_is_longer_than_it_can_be_is_not_read_to_its_end_nor_again(
    name: str, hurt: str, reason: str, server: Server, cache: Cache, waits: list[float]
) -> None:
    server.hurt_suffix, server.hurts = name, [hurt] * 100
    with pytest.raises(UserError, match=reason):
        ShardReader(server.url, cache).sample(0)
    assert waits == []
    assert server.count(name) == 1
    assert server.sent < 100 * 2**20
    assert not list(cache.folder.glob("*/*.tmp"))


EXIT = """
import sys
from pathlib import Path
from hnc_ds.shards.reader import ShardReader
from hnc_ds.shards.remote import Cache
reader = ShardReader(sys.argv[1], Cache(Path(sys.argv[2]), 10**9))
reader.fetch_ahead(range(6))
sys.stdin.readline()
"""


def test_at_exit_nobody_waits_for_what_is_fetched_ahead(server: Server, cache: Cache) -> None:
    server.hurts = ["takes_a_minute"] * 100
    command = [sys.executable, "-c", EXIT, server.url, str(cache.folder)]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        until, left = time.monotonic() + 60, list[Path]()
        while min(len(left), server.count(".tar")) < 4 and time.monotonic() < until:
            time.sleep(0.02)
            left = list(cache.folder.glob("*/*.tar.*.tmp"))
        before = time.monotonic()
        assert process.communicate("\n", timeout=60)[1] == ""
        assert time.monotonic() - before < 20
    assert len(left) == server.count(".tar") == remote.AT_ONCE == 4
    assert not list(cache.folder.glob("*/*.tmp"))


def test_downloads_of_killed_processes_do_not_fill_the_cache(server: Server, cache: Cache) -> None:
    reader = ShardReader(server.url, cache)
    left = reader.folder / "shard-000005.tar.99999.tmp"
    alive = reader.folder / "shard-000004.tar.99998.tmp"
    for path in (left, alive):
        path.write_bytes(b"half")
    with (reader.folder / "shard-000004.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        reader.sample(9)
    assert not left.exists()
    assert alive.exists()


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_refused_is_not_tried_again(
    status: int, server: Server, cache: Cache, waits: list[float]
) -> None:
    server.refuses = status
    with pytest.raises(UserError, match=r"index\.json: (not found|cannot be open).*check the URL"):
        ShardReader(server.url, cache)
    assert waits == []


def test_a_server_that_is_not_there_is_one_line(cache: Cache, waits: list[float]) -> None:
    with pytest.raises(UserError, match="could not be fetched in 6 tries"):
        ShardReader("http://127.0.0.1:9", cache)


def test_other_shards_at_the_same_url_are_not_taken_from_the_cache(
    packing: PackInput, packed: Path, server: Server, cache: Cache
) -> None:
    before = everything(ShardReader(server.url, cache))
    packing.write(IDS[4:])
    pack(packing.config(overwrite=True))
    assert everything(ShardReader(server.url, cache)) == everything(ShardReader(packed)) != before


def test_what_a_killed_process_left_is_removed(server: Server, cache: Cache) -> None:
    reader = ShardReader(server.url, cache)
    left = reader.folder / "shard-000002.tar.99999.tmp"
    left.write_bytes(b"half")
    reader.sample(9)
    assert not left.exists()


def read_one(url: str, cache: Cache, sample: int) -> bytes:
    return ShardReader(url, cache).image_bytes(sample)


@pytest.mark.slow
def test_processes_and_threads_that_want_the_same_shard_fetch_it_once(
    packed: Path, server: Server, cache: Cache
) -> None:
    ShardReader(server.url, cache)
    asked = [(server.url, cache, sample) for sample in (0, 1, 2, 3)]
    with get_context("spawn").Pool(2) as processes, ThreadPoolExecutor(4) as threads:
        far = processes.starmap_async(read_one, asked)
        near = list(threads.map(lambda given: read_one(*given), asked))
        found = far.get(60)
    expected = [ShardReader(packed).image_bytes(sample) for sample in range(4)]
    assert near == found == expected
    assert server.count("shard-000000.tar") == 1


def test_a_full_disk_names_the_cache(
    server: Server, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ShardReader(server.url, cache)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remote, "_download", full)
    with pytest.raises(UserError, match=r"cache: the cache of shards cannot be written \(No space"):
        reader.sample(0)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://me:secret@host/shards", "https://host/shards: give no user or password"),
        ("https://host/shards?sig=1", "has no '\\?' or '#'"),
    ],
)
def test_a_url_that_would_reveal_a_secret_is_refused(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_url(url)
    assert "secret" not in str(refused.value)


def test_an_unknown_or_uninstalled_protocol_is_one_line(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"nix://a/b/index\.json: not a URL that fsspec opens"):
        ShardReader("nix://a/b", cache)

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"; pip install -e '.*\[gs\]'"):
        ShardReader("gs://bucket/shards", cache)


def test_paths_are_not_urls() -> None:
    assert is_url("s3://bucket/shards")
    assert not any(is_url(place) for place in ("data/shards", "/data/s3:/x", Path("s3://b/s")))


def test_the_cache_is_named_by_settings_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HNC_DS_CACHE", "/somewhere")
    monkeypatch.setenv("HNC_DS_CACHE_GB", "2")
    assert cache_of(None, None) == Cache(Path("/somewhere"), 2 * 10**9)
    assert cache_of(Path("here"), 0.5) == Cache(Path("here"), 5 * 10**8)


@pytest.fixture
def bucket(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """The shards in a bucket of an S3-compatible server."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("shards-of-tests")
    store.put(str(packed) + os.sep, "shards-of-tests/train/", recursive=True)
    yield lambda: "s3://shards-of-tests/train"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_shards_in_a_bucket_are_those_of_the_folder(
    bucket: Callable[[], str], packed: Path, cache: Cache, waits: list[float]
) -> None:
    assert everything(ShardReader(bucket(), cache)) == everything(ShardReader(packed))
    with pytest.raises(UserError, match=r"shards-of-tests/val/index\.json: not found"):
        ShardReader("s3://shards-of-tests/val", cache)
    with pytest.raises(UserError, match="check the URL"):
        ShardReader("s3://no-such-bucket/train", cache)
    assert waits == []


def test_an_index_that_names_a_file_outside_of_the_folder_is_refused(
    packed: Path, server: Server, cache: Cache
) -> None:
    index = json.loads((packed / "index.json").read_text())
    index["shards"][0]["file"] = "../../escaped.tar"
    (packed / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside the folder"):
        ShardReader(server.url, cache)
