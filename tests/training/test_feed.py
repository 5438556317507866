"""Batches are on the device before they are needed, and time lost to data is time lost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from hnc_ds.errors import UserError
from hnc_ds.shards.loader import EMPTY, Batch, CaptionMasks
from hnc_ds.training.feed import KEPT_PAIRS, DeviceTime, Feed

CPU = torch.device("cpu")


def batch(number: int) -> Batch:
    """Two rows with one hard negative and an empty slot."""
    return Batch(
        torch.full((2, 3, 4, 4), number, dtype=torch.uint8),
        torch.tensor([[1, 9, 0], [2, 3, 9], [1, 9, 0]]),
        torch.tensor([0, 1]),
        torch.tensor([[2], [EMPTY]]),
        torch.tensor([[0], [EMPTY]]),
        torch.tensor([[EMPTY], [EMPTY]]),
        torch.zeros((2, 0), dtype=torch.int64),
        torch.tensor([number, number + 1]),
        torch.tensor([50, 51, 52]),
        torch.tensor([2, 3, 2]),
        (),
    )


def as_it_is(_: int, given: Batch) -> Batch:
    return given


def test_batches_come_in_order_prepared_for_their_step_and_a_problem_in_its_place() -> None:
    def prepare(step: int, given: Batch) -> Batch:
        return given.without_negatives() if step == 1 else given

    stream: list[Batch | UserError] = [batch(0), batch(10), UserError("no disk"), batch(30)]
    feed = Feed(iter(stream), CPU, prepare)
    assert [feed.draw(step) for step in range(4)] == [True, True, False, True]
    first, second = feed.take(), feed.take()
    assert first.batch.image_index_B.tolist() == [0, 1]
    assert first.alike_BK.tolist() == [[True], [False]]
    assert first.batch.masks == CaptionMasks(pairs_repeat=False, negatives_vary=True)
    assert second.batch.image_index_B.tolist() == [10, 11]
    assert second.batch.used_T.tolist() == [2, 3]
    assert not second.alike_BK.any()
    assert feed.problem() == "no disk"


def test_masks_are_needed_where_something_stands_twice_or_a_slot_is_empty() -> None:
    plain = batch(0)._replace(negative_BK=torch.tensor([[2], [2]]))
    alike = torch.tensor([50, 50, 52])
    cases = {
        "nothing": (plain, CaptionMasks(False, False)),
        "an image twice": (
            plain._replace(image_index_B=torch.tensor([4, 4])),
            CaptionMasks(True, False),
        ),
        "a caption twice": (
            plain._replace(positive_B=torch.tensor([1, 1])),
            CaptionMasks(True, False),
        ),
        "equal captions": (plain._replace(text_index_T=alike), CaptionMasks(True, False)),
        "an empty slot": (batch(0), CaptionMasks(False, True)),
        "another's true caption": (
            plain._replace(negative_BK=torch.tensor([[2], [0]])),
            CaptionMasks(False, True),
        ),
    }
    for name, (made, expected) in cases.items():
        moved = made.to(torch.device("meta"))
        assert moved.masks == expected, name
        assert moved.to(torch.device("meta")).masks == expected, name
        assert moved.used_T.device == CPU
        assert moved.images_B3RR.device.type == "meta"


class PlayedStreams:
    """A device's streams and events, which only note what is done in which order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.now = "computes"

    class Event:
        def __init__(self, **_: Any) -> None:
            pass

        def record(self, *_: Any) -> None:
            pass

        def elapsed_time(self, _: Any) -> float:
            return 1000.0

    class Stream:
        def __init__(self, device: Any) -> None:
            pass

    @contextmanager
    def stream(self, which: Any) -> Iterator[None]:
        before, self.now = self.now, "copies"
        yield
        self.now = before

    def current_stream(self, device: Any) -> Any:
        outer = self

        class Computes:
            def wait_event(self, event: Any) -> None:
                outer.done.append("the step waits for the copy")

        return Computes()


def test_a_copy_is_made_beside_the_steps_which_wait_for_it_and_keep_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams, kept = PlayedStreams(), list[torch.Tensor]()
    move = Batch.to

    def to(given: Batch, device: torch.device) -> Batch:
        streams.done.append(f"copied by the stream that {streams.now}")
        return move(given, device)

    monkeypatch.setattr(torch, "get_device_module", lambda _: streams)
    monkeypatch.setattr(Batch, "to", to)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, _: kept.append(self))
    feed = Feed(iter([batch(0)]), torch.device("meta"), as_it_is)
    assert feed.draw(0)
    assert streams.done == ["copied by the stream that copies"]
    ready = feed.take()
    assert streams.done[1:] == ["the step waits for the copy"]
    moved = [part for part in ready.batch if isinstance(part, torch.Tensor)]
    assert {id(part) for part in kept} == {id(p) for p in moved if p.device.type == "meta"}
    assert len(kept) == len(moved) - 1  # what stays on the host needs none
    assert feed.lost() == 2.0  # both times the events measured a wait of a second
    assert feed.lost() == 0.0


def test_without_an_accelerator_the_wait_for_the_loader_is_lost_and_nothing_else() -> None:
    def slow() -> Iterator[Batch]:
        time.sleep(0.2)
        yield batch(0)

    def prepare(_: int, given: Batch) -> Batch:
        time.sleep(0.4)
        return given

    feed = Feed(slow(), CPU, prepare)
    feed.draw(0)
    assert 0.2 <= feed.lost() < 0.4
    assert feed.lost() == 0.0


class PlayedDevice:
    """A queue that works on what it is given, by a clock of its own."""

    def __init__(self) -> None:
        self.host, self.busy_until = 0.0, 0.0

    def event(self, enable_timing: bool) -> Any:
        device = self

        class Event:
            passed = 0.0

            def record(self) -> None:
                self.passed = max(device.host, device.busy_until)

            def query(self) -> bool:
                return self.passed <= device.host

            def elapsed_time(self, later: Any) -> float:
                return 1e3 * float(later.passed - self.passed)

        assert enable_timing
        return Event()


@pytest.mark.parametrize(("work", "wait", "lost"), [(5, 2, 0), (5, 7, 2), (0, 3, 3)])
def test_a_wait_is_lost_where_the_device_has_run_out_of_work(
    work: float, wait: float, lost: float
) -> None:
    device = PlayedDevice()
    found = DeviceTime(device.event)
    device.busy_until = work
    with found.waiting():
        device.host += wait
    assert found.seconds() == pytest.approx(lost)


def test_a_thousand_waits_keep_few_events() -> None:
    device = PlayedDevice()
    found = DeviceTime(device.event)
    for _ in range(1000):
        with found.waiting():
            device.host += 1
    assert len(found._pairs) <= KEPT_PAIRS
    assert found.seconds() == pytest.approx(1000)
