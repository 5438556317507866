"""One writer for one output: a lock that ends with its process, on network disks too.

    FOLDER/.NAME.lock           who writes FOLDER/NAME, a file or a folder
    FOLDER/.NAME.part-3.lock    who writes its part 3, where several processes share it

The lock is flock's, so that a killed process holds none; the file that it leaves the next one takes
over. Some network disks have no locks, or keep them to one machine. Therefore the holder also
counts up a number in the file, and whoever finds that of another machine waits LEASE seconds to see
whether it does so still. No clocks are compared.
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

from hnc_ds.errors import UserError

RENEWED = 5.0
"""Seconds between two counts of a holder."""
LEASE = 30.0
"""Seconds without a count after which a holder on another machine is gone."""
PATIENCE = 1.0
"""Seconds for which a lock that is held is tried again: its process may just be ending."""
PAUSE = 0.1


class Holder(msgspec.Struct, frozen=True):
    """Who has a lock. Always the same number of bytes while it is held, as it is overwritten."""

    host: str
    machine: str
    """Of the running kernel, so that containers of one machine are one."""
    pid: int
    since: str
    token: str
    """Of this taking of the lock."""
    count: str

    def described(self) -> str:
        """For the message of a refusal."""
        return f"process {self.pid} on {self.host} has been writing it since {self.since}"


@contextmanager
def only_writer(out: Path, place: tuple[int, int] = (0, 1)) -> Iterator[None]:
    """Hold the lock of an output, or of one part of it.

    A job of several parts excludes only others of its own part and one that writes all.

    Args:
        out: The file or folder; it need not exist. The folder above it is made.
        place: Number of this part, and how many there are.

    Raises:
        UserError: Another process holds it, or it cannot be written; nothing was changed.
    """
    path = out.resolve()  # whatever name it goes by
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
        raise UserError(
            f"{out}: cannot be written ({error.strerror or error}); make room, see to its "
            "permissions, or choose another place"
        ) from error
    try:
        with _renewed(file):
            yield
    finally:
        _give_back(path, file)


def _take(path: Path, out: Path) -> int:
    """The open file of a lock that is this process's now."""
    until = time.monotonic() + PATIENCE
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
    """Whether the lock could be had; its file names this process then."""
    locks = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        locks = False
    if not _is_there(file, path):  # removed by the one before
        return False
    before = _decoded(os.pread(file, 4096, 0))
    if before and (not locks or before.machine != _machine()) and _counts_on(path, before, out):
        raise UserError(_refusal(out, before))
    own = Holder(socket.gethostname(), _machine(), os.getpid(), _now(), secrets.token_hex(8), _ZERO)
    _sign(file, path, own)
    if locks:
        return True
    time.sleep(PAUSE)  # two may have come at once: the last one has it
    return (there := _read(path)) is not None and there.token == own.token


def _sign(file: int, path: Path, own: Holder) -> None:
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, msgspec.json.encode(own), 0)
        os.fsync(file)
    except OSError:  # a full disk
        path.unlink(missing_ok=True)
        raise


def _counts_on(path: Path, before: Holder, out: Path) -> bool:
    """Whether the holder that a lock's file names is alive."""
    print(
        f"{out}: process {before.pid} on {before.host} was writing it; waiting up to {LEASE:.0f} s "
        "to see whether it still does",
        flush=True,
    )
    until = time.monotonic() + LEASE
    while time.monotonic() < until:
        time.sleep(min(PAUSE * 10, LEASE / 4))
        there = _read(path)  # opened anew, as network disks keep what an open file read
        if there is None or there.token != before.token:
            return there is not None
        if there.count != before.count:
            return True
    return False


@contextmanager
def _renewed(file: int) -> Iterator[None]:
    """Count up in a lock's file for as long as the block runs."""
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
        with suppress(OSError):  # the disk may be gone for a while
            os.pwrite(file, msgspec.json.encode(own), 0)
            os.fsync(file)


def _give_back(path: Path, file: int) -> None:
    with suppress(OSError):
        if _is_there(file, path):
            path.unlink()
    _close(file)


def _refuse_if_held(path: Path, out: Path) -> None:
    """Refuse where another process has a lock; remove what a killed one left of it.

    Raises:
        UserError: It is held.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may be looking too
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
        return None  # of a process that was killed before it had written it


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


_ZERO = f"{0:010d}"
_COPIES: set[int] = set()
"""Open files of locks; a forked child closes its copies, which would hold the lock beyond us."""


def _close(file: int) -> None:
    _COPIES.discard(file)
    os.close(file)


def _close_copies() -> None:
    while _COPIES:
        with suppress(OSError):
            os.close(_COPIES.pop())


os.register_at_fork(after_in_child=_close_copies)
