"""How every command ends: a line, a status, and a traceback for defects alone."""

import errno
import os
from collections.abc import Callable

import pytest
import torch

from hnc_ds.errors import RankError, Stopped, UserError
from hnc_ds.interruptions import run


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("a.json: broken"), 2, "p: a.json: broken"),
        (Stopped("saved at step 3", 143), 143, "p: saved at step 3"),
        (KeyboardInterrupt(), 130, "p: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "log"), 2, "p: log: No space"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "p: No space left on device; make"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 2, "p: a: Permission denied"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a"), 2, "p: a: Too many"),
        (MemoryError(), 2, "p: not enough memory"),
        (UserError("half \ud800 a character"), 2, "p: half ? a character"),
    ],
)  # fmt: skip
def test_what_the_user_can_fix_is_one_line(
    error: BaseException, status: int, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("p", raising(error)) == status
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(line)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError("x"), RecursionError(), OSError(errno.ENOTCONN, "no socket"),
     UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), FileNotFoundError(errno.ENOENT, "no file")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_defect_keeps_its_traceback(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run("p", raising(error))


def test_an_error_of_all_ranks_is_printed_once_and_one_of_a_single_rank_by_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "RANK", "1")
    assert run("p", raising(UserError("all know"))) == 2
    assert run("p", raising(RankError("rank 1 knows"))) == 2
    assert capfd.readouterr().err == "p: rank 1 knows\n"


class Broken(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> int:
        raise UserError("shards/a.tar: broken; pack again")


def test_what_a_worker_of_a_loader_raises_is_the_line_alone() -> None:
    loader = torch.utils.data.DataLoader(Broken(), num_workers=1, multiprocessing_context="fork")
    with pytest.raises(UserError) as error:
        list(loader)
    assert str(error.value) == "shards/a.tar: broken; pack again"
