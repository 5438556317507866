"""A batch whose activations do not fit: in parts and two passes, with the loss of the whole."""

from functools import partial

from hnc_ds.config import ModelConfig
from hnc_ds.model.clip import Clip, forward_cost
from hnc_ds.model.load import load_model
from speed.made import Captions, drawn_captions, made_batch
from speed.on_gpu.ground import GIB, Ground, Recorder, Row, is_out_of_memory
from speed.on_gpu.steps import NEGATIVES, OURS, repeat
from speed.variants import Ours, shipped

ON_CUDA = ("ViT-L-14-336", 4096, (64, 32, 16, 8))
ON_CPU = ("ViT-S-32-alt", 16, (8,))
QUICK = ("tiny", 16, (4,))
"""Model, batch, and rows of a part; the first that fit are taken."""


def measure(ground: Ground, recorder: Recorder) -> None:
    """A row of one step, or of a second one if there is time for it."""
    model, batch, sizes = ground.pick(ON_CUDA, ON_CPU, QUICK)
    clip = load_model(ModelConfig(model=model), 0)
    cost = forward_cost(clip)
    captions = drawn_captions(ground.folder / "parts", batch, NEGATIVES)
    for rows in sizes:
        try:
            _step(model, rows, clip, captions, cost, ground, recorder)
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        clip = load_model(ModelConfig(model=model), 0)
        ground.free()
    recorder.note(f"Not even parts of {min(sizes)} images fit.")


def _step(
    model: str,
    rows: int,
    clip: Clip,
    captions: Captions,
    cost: tuple[float, float],
    ground: Ground,
    recorder: Recorder,
) -> None:
    batch, parts = len(captions), len(captions) // rows
    made = made_batch(clip, captions, range(batch)).to(ground.device)
    tokens = int((made.token_TL.argmax(dim=1) + 1).sum())
    config = shipped("zero1_bf16", train_batch_size=batch, gradient_accumulation_steps=parts)
    ours = Ours(clip, config, all_negatives=True)
    try:
        step = partial(ours.step, made)
        seconds, counted = repeat(step, 1, ground), "the first, with what starts only once"
        if ground.left() > 2 * seconds:
            seconds, counted = repeat(step, 1, ground), "the second"
        memory = ground.most_held() / GIB if ground.device.type == "cuda" else None
    finally:
        ours.close()
    # The work that the training needs, without the second forward pass, so that rows compare.
    work = 3 * (batch * cost[0] + tokens * cost[1])
    what = f"{model}: {OURS} in {parts} parts"
    recorder.row(Row(what, batch, [batch / seconds], None, work / seconds / 1e12, memory))
    recorder.note(f"One step is timed, {counted}. Its second forward pass is not counted as work.")
