"""What is not finite ends an evaluation: NaN is neither more nor less than anything, so scores that
count comparisons would look like any other, and may look perfect.
"""

from collections.abc import Callable, Iterator

import torch

from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip

NOT_FINITE = "is not finite (NaN or infinity)"
_SHOWN = 60
"""Characters of a caption, in a message."""


def refuse_broken_weights(model: Clip, name: str) -> None:
    """Look through a model's parameters before it encodes anything.

    Args:
        model: Anywhere.
        name: What the user calls it.

    Raises:
        UserError: One is not finite; names the model and the parameter.
    """
    broken = list(_broken(model))
    if broken:
        more = f", and so {'is' if len(broken) == 2 else 'are'} {len(broken) - 1} more"
        raise UserError(
            f"{name}: the weight {broken[0]} {NOT_FINITE}{more if len(broken) > 1 else ''}; "
            "take an earlier checkpoint, or copy the file again"
        )


def refuse_broken_rows(
    rows_ND: torch.Tensor, kind: str, name_of: Callable[[int], str], model: Clip, name: str
) -> None:
    """Look through what a model encoded.

    Args:
        rows_ND: Embeddings.
        kind: 'image' or 'text'.
        name_of: What a row is the embedding of.
        model: That encoded them.
        name: What the user calls it.

    Raises:
        UserError: One is not finite; names the model, the first picture or caption, and a weight
            that is not finite, if there is one.
    """
    broken = (~torch.isfinite(rows_ND)).any(dim=-1).nonzero().view(-1).tolist()
    if not broken:
        return
    weight = next(_broken(model), None)
    why = f"its weight {weight} {NOT_FINITE}" if weight else "its weights are all finite"
    raise UserError(
        f"{name}: the {kind} embedding of {name_of(broken[0])} {NOT_FINITE}, of {len(broken):,} of "
        f"{len(rows_ND):,} in all; {why}; evaluate another checkpoint or model"
    )


def shown(caption: str) -> str:
    """A caption in a message."""
    return f"'{caption}'" if len(caption) <= _SHOWN else f"'{caption[:_SHOWN]}...'"


def _broken(model: Clip) -> Iterator[str]:
    """Parameters that are not finite, by open_clip's names."""
    for name, parameter in model.towers.named_parameters():
        if not torch.isfinite(parameter).all():
            yield name
