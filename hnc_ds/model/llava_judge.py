"""A LLaVA as a judge of captions: the probability that it answers Yes to whether an image shows
what a caption says.

The score is the log-odds of the first token of "Yes" against all other tokens, at the place where
an answer begins. A caption with quotation marks is put into the question as it is.

P pairs, n tokens of an image, L tokens of the question behind it, width D.

Source: VQAScore (Lin et al. 2024, arXiv 2404.01291), its question and its prompt for LLaVA-1.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hnc_ds.errors import UserError
from hnc_ds.model.cross_encoder import CaptionTokenizer, CrossEncoder, Kind
from hnc_ds.model.llava_prompt import IMAGE, around_image, prompt
from hnc_ds.shards.images import ImageSettings

QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
YES = "Yes"


class QuestionTokenizer(CaptionTokenizer):
    """Captions to the tokens of their questions, behind the image."""

    def ids(self, captions: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each question, and whether it is too long; none is truncated."""
        found = [
            around_image(self.tokenizer, *prompt(QUESTION.format(caption)).split(IMAGE))[1]
            for caption in captions
        ]
        return found, [len(ids) > self.context_length for ids in found]


class LlavaJudge(CrossEncoder):
    """A LLaVA-1.5 under the interface of a cross-encoder; it is not trained.

    Args:
        towers: LlavaForConditionalGeneration.
        kind: Its record.
        tokenizer: Of its language model.
        image_settings: Its preprocessing; images are padded to squares, as LLaVA-1.5 pads them.
        preprocessing: The file that has it, by name.

    Raises:
        UserError: The tokenizer makes no tokens of YES.
    """

    def __init__(
        self,
        towers: Any,
        kind: Kind,
        tokenizer: Any,
        image_settings: ImageSettings,
        preprocessing: Mapping[str, bytes],
    ) -> None:
        padded = replace(image_settings, resize_mode="pad")
        super().__init__(towers, kind, tokenizer, padded, preprocessing)
        self.tokenize = QuestionTokenizer(tokenizer, self.tokenize.context_length)
        self._before = around_image(tokenizer, *prompt("").split(IMAGE))[0]
        answer = around_image(tokenizer, "", YES)[1]
        if not answer:
            raise UserError(f"the tokenizer makes no tokens of '{YES}'; copy the folder again")
        self._yes = answer[0]

    def see(self, images_B3RR: torch.Tensor) -> torch.Tensor:
        """Projected features of the images, [B, n, D]."""
        pixels = self.pixels(images_B3RR)
        found = self.towers.model.get_image_features(pixel_values=pixels, return_dict=True)
        return torch.stack(list(found.pooler_output)).to(pixels.dtype)

    def match(
        self, seen_P: torch.Tensor, token_PL: torch.Tensor, mask_PL: torch.Tensor
    ) -> torch.Tensor:
        """Log-odds of YES, float32 [P].

        Args:
            seen_P: Rows of ``see``, one for each question.
            token_PL: int64, padded.
            mask_PL: int64, 0 for padding.
        """
        words = self.towers.get_input_embeddings()
        before_1B = torch.tensor([self._before], device=token_PL.device)
        before = words(before_1B).expand(len(seen_P), -1, -1)
        whole = torch.cat([before, seen_P, words(token_PL)], dim=1)
        ahead = whole.shape[1] - token_PL.shape[1]
        mask = torch.cat([mask_PL.new_ones(len(seen_P), ahead), mask_PL], dim=1)
        states = self.towers.model.language_model(
            inputs_embeds=whole, attention_mask=mask, use_cache=False
        ).last_hidden_state
        last_P = mask.sum(dim=1) - 1
        logits_PV = self.towers.lm_head(states[torch.arange(len(last_P)), last_P]).float()
        yes_P = logits_PV[:, self._yes].clone()
        logits_PV[:, self._yes] = -torch.inf
        return yes_P - logits_PV.logsumexp(dim=1)
