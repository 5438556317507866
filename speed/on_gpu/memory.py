"""The largest batch that a device has room for, with and without gradient checkpointing, by hnc_ds
and by open_clip's step: doubled until it does not fit, and one try between the last two."""

from collections.abc import Callable
from functools import partial

from hnc_ds.config import ModelConfig
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from speed.made import Captions, drawn_captions
from speed.on_gpu.ground import GIB, Ground, Recorder, Row
from speed.on_gpu.steps import NEGATIVES, OURS, THEIRS, Steps

ON_CUDA = ("ViT-L-14-336", (64, 512), 2048)
ON_CPU = ("ViT-S-32-alt", (4, 4), 8)
QUICK = ("tiny", (2, 2), 4)
"""Model, first batch without and with gradient checkpointing, and the largest that is tried."""
TRY_SECONDS = 15.0
"""What one more try may take."""


def measure(ground: Ground, recorder: Recorder) -> None:
    """Rows of both variants, at the largest batch of each."""
    model, starts, most = ground.pick(ON_CUDA, ON_CPU, QUICK)
    clip = load_model(ModelConfig(model=model), 0)
    captions = drawn_captions(ground.folder / "memory", most, NEGATIVES)
    for start, again in zip(starts, (False, True), strict=True):
        for name in (OURS, THEIRS):
            what = f"{model}{', gradient checkpointing' * again}: {name}"
            with recorder.attempt(what):
                search = _Search(clip, captions, name, again, ground)
                try:
                    largest_that_fits(search.fits, start, most)
                finally:
                    search.close()
                _record_row(what, search, most, recorder)
            ground.free()


def _record_row(what: str, search: "_Search", most: int, recorder: Recorder) -> None:
    if search.row is None:
        recorder.note(f"{what}: none of the batches that were tried fits.")
        return
    batch, per_second, memory = search.row
    recorder.row(Row(what, batch, [per_second], memory_gib=memory))
    bound = "the largest that is tried" if batch == most else f"tried: {search.summary()}"
    recorder.note(f"{what}: {bound}{', then no time was left' * search.hurried}.")


def largest_that_fits(fits: Callable[[int], bool], start: int, most: int) -> int | None:
    """A batch that fits, None where nothing does: doubled from ``start`` up to ``most`` (halved
    where that does not fit), and one try halfway to the first that does not."""
    batch = start
    while not fits(batch):
        if batch == 1:
            return None
        batch //= 2
    if batch < start:
        return batch
    while 2 * batch <= most:
        if not fits(2 * batch):
            return batch + batch // 2 if fits(batch + batch // 2) else batch
        batch *= 2
    return batch


class _Search:
    """Tries batches, and keeps what the largest that fitted has shown.

    Args:
        clip: A model on the CPU.
        captions: Of as many images as may be tried.
        name: OURS or THEIRS.
        again: Whether activations are computed again in the backward pass.
        ground: Where.
    """

    def __init__(
        self, clip: Clip, captions: Captions, name: str, again: bool, ground: Ground
    ) -> None:
        self._captions, self._name, self._ground = captions, name, ground
        # One model for all its batches: making it takes longer than a step.
        self._steps = partial(Steps, clip, ground=ground, names=(name,), checkpointing=again)
        self._made: Steps | None = None
        self.row: tuple[int, float, float | None] | None = None
        """Batch, images a second, GiB."""
        self._tried: dict[int, bool] = {}
        self.hurried = False
        """Whether a try was left out because time was short."""

    def fits(self, batch: int) -> bool:
        """Whether there is room for two steps of it, the second of which is timed: it is the one
        that has the optimizer's moments beside the activations."""
        if self.row is not None and self._ground.left() < TRY_SECONDS:
            self.hurried = True
            return False
        self._ground.free()
        self._made = self._made or self._steps(captions=self._captions[:batch])
        self._tried[batch] = self._made.fits(self._captions[:batch])
        if self._tried[batch]:
            held = self._ground.most_held() / GIB
            memory = held if self._ground.device.type == "cuda" else None
            found = (batch, batch / self._made.seconds[self._name], memory)
            self.row = max(self.row or found, found)
        else:
            self.close()  # what a step has left behind that was cut short counts no more
        return self._tried[batch]

    def summary(self) -> str:
        """What was tried."""
        return ", ".join(f"{b} {'fits' if f else 'does not'}" for b, f in self._tried.items())

    def close(self) -> None:
        """Let go of the memory."""
        if self._made is not None:
            self._made.close()
        self._made = None
