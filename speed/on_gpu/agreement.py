"""Agreement of results on the device with those of the plain variant on the CPU.

T captions of L tokens, width D.
"""

import torch
import torch.nn.functional as F

from hnc_ds.config import ModelConfig
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.model.text import unit_rows
from speed import loss
from speed.made import drawn_captions, made_batch
from speed.on_gpu.ground import Ground, Recorder
from speed.timing import Check
from speed.variants import Ours, shipped

LOSS_ROWS, QUICK_LOSS_ROWS = 1024, 64
LOSS_ALLOWED = {torch.float32: (1e-5, 1e-3), torch.bfloat16: (1e-5, 1e-2)}
"""Of the loss, and of a gradient as a share of the largest; gradients of bf16 are rounded to it."""
TEXT_ALLOWED = 0.01
"""1 - cosine; bf16 has 8 bits, and a tower twelve layers."""
STEPS, ROWS, NEGATIVES, RATE = 20, 32, 4, 1e-3
FALLS_TO = 0.9
"""Share of the first loss that the last may be at most."""


def measure(ground: Ground, recorder: Recorder) -> None:
    """Checks, each of which may fail by itself."""
    for dtype in LOSS_ALLOWED:
        with recorder.attempt(f"loss in slices, {dtype}"):
            _loss_is_the_matrix(ground, recorder, dtype)
    with recorder.attempt("text without padding"):
        _text_is_the_padded(ground, recorder)
    for precision in ("bf16", "fp16"):
        if precision == "fp16" and ground.device.type == "cpu":
            recorder.note("fp16 is not tried: DeepSpeed has none on a CPU.")
            continue
        with recorder.attempt(f"training in {precision}"):
            _loss_falls(ground, recorder, precision)
        ground.free()


def _loss_is_the_matrix(ground: Ground, recorder: Recorder, dtype: torch.dtype) -> None:
    """Slices of columns against the whole matrix, of embeddings in a precision."""
    inputs = loss.made(QUICK_LOSS_ROWS if ground.quick else LOSS_ROWS)
    leaves = [part.detach().to(ground.device, dtype).requires_grad_() for part in inputs]
    wide = [leaf.float() for leaf in leaves]
    with ground.device:  # where the variants make their own tensors
        found = loss.ours(loss.Inputs(*leaves))
        expected = loss.theirs(loss.Inputs(*wide))
    pairs = zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    )
    apart = max(float((a.float() - b.float()).abs().max() / b.abs().max()) for a, b in pairs)
    of_loss, of_gradient = LOSS_ALLOWED[dtype]
    name = str(dtype).removeprefix("torch.")
    difference = float((found - expected).detach().abs() / expected.detach().abs())
    recorder.check(
        Check(f"loss in slices, {name} embeddings: off the matrix's", difference, of_loss)
    )
    recorder.check(
        Check(f"the same, {name}: a gradient, of the largest gradient", apart, of_gradient)
    )


def _text_is_the_padded(ground: Ground, recorder: Recorder) -> None:
    """Embeddings and gradients in bf16, in the form that training uses and in open_clip's own."""
    clip = load_model(ModelConfig(model="tiny" if ground.quick else "ViT-B-32"), 0)
    drawn = drawn_captions(ground.folder / "agreement", 8, NEGATIVES)
    clip.to(ground.device, torch.bfloat16)
    token_TL = clip.tokenize([caption for of in drawn for caption in of]).to(ground.device)
    missing = clip.tokenize.context_length - token_TL.shape[1]
    found_TD, gradient = _learned(clip, clip.encode_texts(token_TL))
    padded_TD = unit_rows(clip.towers.encode_text(F.pad(token_TL, (0, missing))))
    expected_TD, expected = _learned(clip, padded_TD)
    form = "packed" if computed_tokens(clip, token_TL) < token_TL.numel() else "trimmed"
    apart = float((1 - (found_TD * expected_TD).sum(dim=1)).max())
    recorder.check(Check(f"{form} text in bf16, 1 - cosine with the padded", apart, TEXT_ALLOWED))
    turned = float(1 - F.cosine_similarity(gradient, expected, dim=0))
    recorder.check(Check("the same of all gradients", turned, TEXT_ALLOWED))


def computed_tokens(clip: Clip, token_TL: torch.Tensor) -> int:
    """Tokens that go through the text tower, padding included."""
    of_captions = getattr(clip, "computed_tokens", None)
    return int(of_captions(token_TL).sum()) if of_captions else token_TL.numel()


def _learned(clip: Clip, text_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The embeddings and, in one row, the gradients of a projection of them."""
    clip.zero_grad(set_to_none=True)
    direction_TD = torch.linspace(-1, 1, text_TD.numel(), device=text_TD.device).view_as(text_TD)
    (text_TD * direction_TD).sum().backward()
    gradients = [p.grad.flatten().float() for p in clip.parameters() if p.grad is not None]
    return text_TD.detach(), torch.cat(gradients)


def _loss_falls(ground: Ground, recorder: Recorder, precision: str) -> None:
    """Steps on one batch under ds_configs/zero1_PRECISION.json at a high rate."""
    clip = load_model(ModelConfig(), 0)
    captions = drawn_captions(ground.folder / precision, ROWS, NEGATIVES)
    config = shipped(f"zero1_{precision}", train_batch_size=ROWS)
    config["optimizer"]["params"]["lr"] = RATE
    batch = made_batch(clip, captions, range(ROWS)).to(ground.device)
    ours = Ours(clip, config)
    try:
        losses = [float(ours.step(batch)) for _ in range(STEPS)]
    finally:
        ours.close()
    what = f"ZeRO 1 in {precision}: loss after {STEPS} steps on a batch, of the first"
    recorder.check(Check(what, losses[-1] / losses[0], FALLS_TO))
