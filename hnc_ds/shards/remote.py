"""Remote shards: a folder behind any URL that fsspec opens, cached shard by shard.

A shard is fetched whole into a local folder, checked against its index, and read like a local one.
Processes that need the same shard wait for the first. The cache is bounded in size and evicts the
least recently read shards; open files stay readable after eviction.

No fsspec object outlives a call, so that a folder can be passed to worker processes.
"""

import errno
import fcntl
import hashlib
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from hnc_ds.atomic_files import TEMPORARY_SUFFIX, atomic_write
from hnc_ds.errors import UserError
from hnc_ds.installing import pip_install
from hnc_ds.reading import sha256_of
from hnc_ds.shards.format import INDEX_NAME, ShardSummary, shard_index_path

T = TypeVar("T")

TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds between tries: exponential backoff with jitter, so that ranks do not retry together."""

CACHE_GB = 50.0

AT_ONCE = 4
"""Threads that prefetch shards."""

MOST_INDEX_BYTES = 64 * 2**20
"""Maximum bytes of index.json and of a shard's index; enough for half a million entries."""

TRANSPORTS = frozenset(
    (
        "aiobotocore",
        "aiohttp",
        "botocore",
        "gcsfs",
        "google",
        "httpx",
        "huggingface_hub",
        "requests",
    )
)
"""Libraries under fsspec that define their own exceptions."""


class TooLong(OSError):
    """A download has more bytes than expected."""


GIVEN_UP = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, TooLong)
"""Errors that are not retried."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
"""The extra of hnc-ds that installs a protocol's packages."""


class Cache(NamedTuple):
    """Folder and maximum size of the cache."""

    folder: Path
    most_bytes: int


def cache_of(folder: Path | None, gigabytes: float | None) -> Cache:
    """The cache of the settings; defaults are $HNC_DS_CACHE and $HNC_DS_CACHE_GB."""
    if folder is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(os.environ.get("HNC_DS_CACHE") or Path(home) / "hnc_ds")
    if gigabytes is None:
        gigabytes = float(os.environ.get("HNC_DS_CACHE_GB") or CACHE_GB)
    return Cache(folder, int(gigabytes * 1e9))


def is_url(location: object) -> bool:
    """Whether a location is a URL."""
    return isinstance(location, str) and "://" in location


def check_url(url: str) -> str:
    """The URL without trailing slashes.

    Raises:
        UserError: It holds a password, which would appear in logs, or a query.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        place = parts.netloc.rpartition("@")[2]
        raise UserError(
            f"{parts.scheme}://{place}{parts.path}: give no user or password in a URL; "
            "the protocol's own configuration and environment variables hold them"
        )
    if parts.query or parts.fragment:
        raise UserError(f"{url}: a URL of a folder has no '?' or '#'; files are named below it")
    return url.rstrip("/")


class RemoteFolder:
    """A folder of shards behind a URL, and its local cache.

    Args:
        url: URL of the folder.
        cache: Folder and size of the cache.
        wait: Called with the seconds between two tries.

    Raises:
        UserError: The index does not exist, cannot be fetched, or cannot be written.
    """

    def __init__(
        self, url: str, cache: Cache, wait: Callable[[float], object] = time.sleep
    ) -> None:
        self.url, self._cache, self._wait = check_url(url), cache, wait
        index = self._try(INDEX_NAME, _read)
        # Another version of the shards has another index, and so its own folder.
        names = (hashlib.sha256(part).hexdigest()[:16] for part in (self.url.encode(), index))
        self.folder = cache.folder / "-".join(names)
        with _local(cache.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with _alone(self.folder / ".lock"):
                atomic_write(self.folder / INDEX_NAME, index)
        self._ahead: dict[int, _Ahead] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ahead": {}}  # threads stay behind

    def fetch(self, shard: ShardSummary) -> None:
        """Fetch a shard and its offsets into ``folder``, unless they are cached.

        Raises:
            UserError: It cannot be fetched, differs from the index, or does not fit.
        """
        tar = self.folder / shard.file
        self.fetch_offsets(shard)
        with _local(self._cache.folder), _alone(tar.with_suffix(".lock")):
            if not _is_there(tar, shard):
                self._make_room(shard)
                self._try(shard.file, partial(_download, tar, shard))
            os.utime(tar)  # most recently used

    def fetch_offsets(self, shard: ShardSummary) -> None:
        """Fetch the offsets of a shard into ``folder``, unless they are cached.

        Raises:
            UserError: They cannot be fetched or written.
        """
        offsets = shard_index_path(self.folder / shard.file)
        with _local(self._cache.folder), _alone(offsets.with_suffix(".lock")):
            if not offsets.is_file():
                atomic_write(offsets, self._try(offsets.name, _read))

    def fetch_ahead(self, shards: Sequence[ShardSummary], share: float = 1.0) -> None:
        """Prefetch shards in order, at most half of the cache's size.

        Args:
            shards: The shards.
            share: This folder's share of the cache, in (0, 1].
        """
        if os.getpid() not in self._ahead:  # threads do not survive a fork
            self._ahead = {os.getpid(): _Ahead(self._fetch_quietly)}
        left = int(self._cache.most_bytes // 2 * share)
        for shard in shards:
            left -= shard.bytes
            if left >= 0:
                self._ahead[os.getpid()].submit(shard)

    def _fetch_quietly(self, shard: ShardSummary) -> None:
        with suppress(UserError):  # raised again by the read that needs the shard
            self.fetch(shard)

    def _make_room(self, shard: ShardSummary) -> None:
        """Evict least recently used shards until another fits."""
        if shard.bytes > self._cache.most_bytes:
            raise UserError(
                f"{self.url}/{shard.file}: has {shard.bytes:,} bytes, more than the cache may hold "
                f"({self._cache.most_bytes:,}); give it more with --cache_gb"
            )
        with _alone(self._cache.folder / ".lock"):
            for left in self.folder.glob(f"{shard.file}.*{TEMPORARY_SUFFIX}"):
                left.unlink()  # leftover of a killed process
            _remove_dead(self._cache.folder)
            kept = sorted(_files(self._cache.folder, "*/*.tar"))
            coming = _files(self._cache.folder, f"*/*.tar.*{TEMPORARY_SUFFIX}")
            filled = sum(size for _, size, _ in (*kept, *coming))
            over = filled + shard.bytes - self._cache.most_bytes
            for _, size, tar in kept:
                if over <= 0:
                    return
                tar.unlink(missing_ok=True)
                over -= size

    def _try(self, name: str, do: Callable[[Any, str], T]) -> T:
        """Run ``do(filesystem, path)`` for a file of the folder, with retries."""
        url, wait, number = f"{self.url}/{name}", FIRST_WAIT, 0
        while True:
            number += 1
            try:
                return do(*_open_filesystem(url))
            except Exception as error:  # libraries under fsspec define their own exceptions
                if not _is_transports(error):
                    raise
                if number == TRIES or _is_final(error):
                    raise UserError(_message(url, error, number)) from error
            self._wait(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, LONGEST_WAIT)


class _Ahead:
    """Daemon threads that prefetch shards; ThreadPoolExecutor's would delay the process's exit.

    Args:
        fetch: Fetches a shard.
    """

    def __init__(self, fetch: Callable[[ShardSummary], object]) -> None:
        self._waiting: SimpleQueue[ShardSummary] = SimpleQueue()
        self._fetch = fetch
        # Unlike atexit, this also runs in worker processes.
        Finalize(None, _remove_unfinished, exitpriority=1)
        for _ in range(AT_ONCE):
            threading.Thread(target=self._work, daemon=True, name="shards").start()

    def submit(self, shard: ShardSummary) -> None:
        """Queue a shard."""
        self._waiting.put(shard)

    def _work(self) -> None:
        while True:
            self._fetch(self._waiting.get())


_UNFINISHED: set[Path] = set()
"""This process's unfinished downloads."""


def _remove_unfinished() -> None:
    for temporary in list(_UNFINISHED):
        temporary.unlink(missing_ok=True)


def _open_filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    import fsspec

    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        # A shard may take long; only a minute without data is an error.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        options["client_kwargs"] = {"timeout": timeout}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        extra = EXTRAS.get(urlsplit(url).scheme)
        brings = pip_install(extra) if extra else "install what it names"
        raise UserError(f"{url}: needs a package that is missing ({error}); {brings}") from error
    except ValueError as error:
        raise UserError(f"{url}: not a URL that fsspec opens ({error})") from error
    return filesystem, path


def _read(filesystem: Any, path: str) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        limit = _limit(MOST_INDEX_BYTES, f"more than {MOST_INDEX_BYTES:,} bytes, not an index")
        filesystem.get_file(path, file.name, callback=limit)
        return Path(file.name).read_bytes()


def _limit(most: int, problem: str) -> Any:
    """An fsspec callback that aborts a download of more than ``most`` bytes."""
    from fsspec.callbacks import Callback

    class Limit(Callback):
        def set_size(self, size: int | None) -> None:
            self._check(size or 0)
            super().set_size(size)

        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            self._check(self.value)

        def absolute_update(self, value: int) -> None:
            super().absolute_update(value)
            self._check(value)

        def _check(self, size: int) -> None:
            if size > most:
                raise TooLong(problem)

    return Limit()


def _download(tar: Path, shard: ShardSummary, filesystem: Any, path: str) -> None:
    """Download a shard atomically. Raises OSError if it differs from the index."""
    temporary = tar.with_name(f"{tar.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    _UNFINISHED.add(temporary)
    try:
        limit = _limit(shard.bytes, f"more than the {shard.bytes:,} bytes of the index")
        filesystem.get_file(path, str(temporary), callback=limit)
        if (size := temporary.stat().st_size) != shard.bytes:
            raise OSError(f"{size:,} bytes came, the index has {shard.bytes:,}")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if sha256_of(temporary) != shard.sha256:
            raise OSError("its sha256 is not that of the index")
        temporary.replace(tar)
    finally:
        temporary.unlink(missing_ok=True)
        _UNFINISHED.discard(temporary)


def _remove_dead(cache: Path) -> None:
    """Remove downloads of killed processes: those whose shard is not locked."""
    for left in cache.glob(f"*/*.tar.*{TEMPORARY_SUFFIX}"):
        lock = left.with_name(f"{left.name.partition('.tar.')[0]}.lock")
        with suppress(OSError), lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink(missing_ok=True)


def _is_there(tar: Path, shard: ShardSummary) -> bool:
    return tar.is_file() and tar.stat().st_size == shard.bytes


def _files(cache: Path, pattern: str) -> Iterator[tuple[int, int, Path]]:
    """Time of the last use, bytes and path of files in the cache."""
    for path in cache.glob(pattern):
        with suppress(FileNotFoundError):
            status = path.stat()
            yield status.st_mtime_ns, status.st_size, path


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """An exclusive file lock, released when its process ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _local(cache: Path) -> Iterator[None]:
    """Raise OSErrors of the cache as a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{cache}: the cache of shards cannot be written ({error.strerror or error}); "
            "make room, or name another folder with --cache"
        ) from error


def _is_transports(error: Exception) -> bool:
    """Whether an error comes from the network or server, not from this machine or code."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return False
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, (OSError, EOFError, TimeoutError)) or library in TRANSPORTS


def _is_final(error: Exception) -> bool:
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    return refused or isinstance(error, GIVEN_UP) or "Credentials" in type(error).__name__


def _message(url: str, error: Exception, tries: int) -> str:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, FileNotFoundError):
        return f"{url}: not found; check the URL of the folder that 'hnc-ds pack' wrote"
    if isinstance(error, TooLong):
        return f"{url}: {error}; check the URL of the folder that 'hnc-ds pack' wrote"
    if _is_final(error):
        return f"{url}: cannot be opened ({reason[0]}); check the URL and the credentials"
    return f"{url}: could not be fetched in {tries} tries ({reason[0]}); check the network"
