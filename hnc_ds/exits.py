"""How every command ends: one line for what the user can mend, and the exit status.

Whatever is not known to come from the user, his files or his disks is a defect of this project and
keeps its traceback.
"""

import errno
import os
import select
import sys
from collections.abc import Callable

from hnc_ds.errors import RankError, Stopped, UserError
from hnc_ds.launch import is_rank_zero

OF_THE_DISK = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or ask for a larger quota",
    errno.EFBIG: "the disk or a limit (ulimit -f) takes no file so large",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EIO: "the disk has a fault",
    errno.ESTALE: "the network disk lost it; start again",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "this machine has too many files open",
    errno.EISDIR: "is a folder; name a file",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.ENOENT: "was it removed meanwhile?",
}
"""What disks and paths do to a program, and what to do about it."""


def run(program: str, command: Callable[[], object]) -> int:
    """Run a command to its end.

    Args:
        program: Its name at the beginning of a line.
        command: Everything that it does.

    Returns:
        0, 2 for what the user can mend, 130 when interrupted, 128 + a signal; and 0 where nobody
        reads on ('hnc-ds benchmarks | head').
    """
    try:
        command()
        sys.stdout.flush()
        return 0
    except UserError as error:
        # Of several ranks all have the same to say, but for what one alone knows.
        return _end(program, str(error), 2, isinstance(error, RankError))
    except Stopped as end:
        return _end(program, str(end), end.status)
    except KeyboardInterrupt:
        return _end(program, "interrupted", 130)
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 0
    except MemoryError as error:
        told = str(error).strip().partition("\n")[0]
        needs = f"not enough memory{f' ({told})' if told else ''}"
        return _end(program, f"{needs}; ask for more, or do less at once", 2, True)
    except OSError as error:
        if (line := _of_the_disk(error)) is None:
            raise
        return _end(program, line, 2, True)


def _end(program: str, line: str, status: int, always: bool = False) -> int:
    if always or is_rank_zero():
        print(f"{program}: {line}".encode(errors="replace").decode(), file=sys.stderr, flush=True)
    return status


def _of_the_disk(error: OSError) -> str | None:
    """The line about a path that cannot be used; None where the error names none, as that of a
    socket, unless the disk is full."""
    if error.errno not in OF_THE_DISK:
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    if error.filename is None and not full:
        return None
    named = [
        os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)
    ]
    where = f"{' -> '.join(named)}: " if named else ""
    return f"{where}{error.strerror or error}; {OF_THE_DISK[error.errno]}"


def _reader_is_gone() -> bool:
    """Whether what is printed is a pipe that nobody reads; it then goes nowhere, without another
    complaint when Python ends."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone
