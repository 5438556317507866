"""One writer per output: a lock that ends with its process, on network disks too.

    FOLDER/.NAME.lock           held by the writer of FOLDER/NAME, a file or a folder
    FOLDER/.NAME.part-3.lock    held by the writer of its part 3, if several processes share it

It is a flock, which a killed process releases; the next process takes over the file. Some network
disks have no locks, or keep them to one machine. The holder therefore also increments a counter in
the file, and a process that finds the file of another machine waits LEASE seconds to see whether
the counter still changes. No clocks are compared.
"""

import fcntl
import glob
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from hnc_ds.atomic_files import CannotWrite
from hnc_ds.errors import UserError

RENEWED = 5.0
"""Seconds between two increments of the counter."""
LEASE = 30.0
"""Seconds without an increment after which a holder on another machine counts as dead."""
RETRY_SECONDS = 1.0
"""How long a held lock is tried again, as its process may be ending."""
PAUSE = 0.1


class Holder(msgspec.Struct, frozen=True):
    """The content of a lock file. Its size is constant, as it is overwritten in place."""

    host: str
    machine: str
    """Id of the running kernel, shared by the containers of a machine."""
    pid: int
    since: str
    token: str
    """Id of this acquisition."""
    count: str

    def described(self) -> str:
        """The holder, for error messages."""
        return f"process {self.pid} on {self.host} has been writing it since {self.since}"


@contextmanager
def only_writer(out: Path, place: tuple[int, int] = (0, 1)) -> Iterator[None]:
    """Hold the lock of an output, or of one part of it.

    The writer of a part excludes writers of the same part and of the whole output.

    Args:
        out: The file or folder; it need not exist. Its parent folder is created.
        place: Number of this part, and number of parts.

    Raises:
        UserError: Another process holds it, or it cannot be written; nothing is changed.
    """
    # One lock for all names of a path; unlike resolve(), it takes a link to itself.
    path = Path(os.path.realpath(out))
    number, parts = place
    whole = path.with_name(f".{path.name}.lock")
    own = whole if parts == 1 else path.with_name(f".{path.name}.part-{number}.lock")
    with _held(own, out):
        if parts > 1:
            _refuse_if_held(whole, out)
        else:
            for part in path.parent.glob(f".{glob.escape(path.name)}.part-*.lock"):
                _refuse_if_held(part, out)
        yield


@contextmanager
def _held(path: Path, out: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _take(path, out)
    except OSError as error:
        raise CannotWrite(error.errno or 0, error.strerror or str(error), str(out)) from error
    try:
        with _renewed(file):
            yield
    finally:
        _release(path, file)


def _take(path: Path, out: Path) -> int:
    """Acquire a lock; returns its open file."""
    until = time.monotonic() + RETRY_SECONDS
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _COPIES.add(file)
        try:
            if _is_ours(file, path, out):
                return file
        except BaseException:
            _close(file)
            raise
        _close(file)
        if time.monotonic() > until:
            raise UserError(_refusal(out, _read(path)))
        time.sleep(PAUSE)


def _is_ours(file: int, path: Path, out: Path) -> bool:
    """Try to acquire the lock; on success its file names this process."""
    locks = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        locks = False
    if not _is_there(file, path):  # removed by the previous holder
        return False
    before = _decoded(os.pread(file, 4096, 0))
    if before and (not locks or before.machine != _machine()) and _is_alive(path, before, out):
        raise UserError(_refusal(out, before))
    host, now = socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S")
    own = Holder(host, _machine(), os.getpid(), now, secrets.token_hex(8), _ZERO)
    _sign(file, path, own)
    if locks:
        return True
    time.sleep(PAUSE)  # of two at once, the last to write has it
    return (holder := _read(path)) is not None and holder.token == own.token


def _sign(file: int, path: Path, own: Holder) -> None:
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, msgspec.json.encode(own), 0)
        os.fsync(file)
    except OSError:  # a full disk
        path.unlink(missing_ok=True)
        raise


def _is_alive(path: Path, before: Holder, out: Path) -> bool:
    """Whether the holder that a lock file names still increments its counter."""
    print(
        f"{out}: process {before.pid} on {before.host} was writing it; waiting up to {LEASE:.0f} s "
        "to see whether it still does",
        flush=True,
    )
    until = time.monotonic() + LEASE
    while time.monotonic() < until:
        time.sleep(min(PAUSE * 10, LEASE / 4))
        now = _read(path)  # opened again, as network disks cache the reads of an open file
        if now is None or now.token != before.token:
            return now is not None
        if now.count != before.count:
            return True
    return False


@contextmanager
def _renewed(file: int) -> Iterator[None]:
    """Increment the counter of a lock file while the block runs."""
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(file, ended), daemon=True, name="lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _renew(file: int, ended: threading.Event) -> None:
    own = _decoded(os.pread(file, 4096, 0))
    while own and not ended.wait(RENEWED):
        own = msgspec.structs.replace(own, count=f"{int(own.count) + 1:010d}")
        with suppress(OSError):  # the disk may be unavailable for a while
            os.pwrite(file, msgspec.json.encode(own), 0)
            os.fsync(file)


def _release(path: Path, file: int) -> None:
    with suppress(OSError):
        if _is_there(file, path):
            path.unlink()
    _close(file)


def _refuse_if_held(path: Path, out: Path) -> None:
    """Check that no other process holds a lock; remove the lock of a killed one.

    Raises:
        UserError: It is held.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, as others may be checking too
        path.unlink(missing_ok=True)
    except BlockingIOError:
        raise UserError(_refusal(out, _read(path))) from None
    except OSError:
        pass  # a disk without locks
    finally:
        os.close(file)


def _refusal(out: Path, holder: Holder | None) -> str:
    who = holder.described() if holder else "another process is writing it"
    return f"{out}: {who}; wait for it, or stop it"


def _is_there(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> Holder | None:
    try:
        return _decoded(path.read_bytes())
    except OSError:
        return None


def _decoded(content: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(content, type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # its process was killed before writing it


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


_ZERO = f"{0:010d}"
_COPIES: set[int] = set()
"""Open lock files; forked children close their copies, which would outlive this process."""


def _close(file: int) -> None:
    _COPIES.discard(file)
    os.close(file)


def _close_copies() -> None:
    while _COPIES:
        with suppress(OSError):
            os.close(_COPIES.pop())


os.register_at_fork(after_in_child=_close_copies)
