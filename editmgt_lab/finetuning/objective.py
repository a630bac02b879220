"""What fine-tuning minimises: the masked-token loss, and for old pairs how far the network goes from what it was."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..basics.dtypes import has_bfloat16
from ..editor import Editor
from ..training.objective import by_token, nearest_codes, picture_conditions, token_losses
from .batch import Batch
from .settings import FinetuneSettings


class Objective:
    """The loss of a batch, for an editor and settings. Where there are pairs to replay, it keeps a copy of the
    transformer as it is now, before an adapter is put on it."""

    def __init__(self, editor: Editor, settings: FinetuneSettings, *, replay: bool):
        self.editor, self.settings = editor, settings
        self.looks = self.before = None
        if settings.look_weight:
            self.looks = nearest_codes(editor.vq.quantize.embedding.weight.detach())
        if replay and settings.distillation:
            self.before = copy.deepcopy(editor.transformer).requires_grad_(False).eval()

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Sum over the tokens that are asked in nats, each by its weight; `Batch.total` makes it a mean."""
        target, weights, asked = (x.to(self.editor.device) for x in (batch.target, batch.weights, batch.asked))
        answers, weights = target[asked], weights[asked]  # [n]
        logits = self.logits(network, batch)  # [n, codebook]
        if self.looks is None:
            losses = F.cross_entropy(logits, answers, reduction="none")
        else:
            neighbours, likeness = self.looks
            exact, look = token_losses(logits, answers, neighbours, likeness)
            losses = exact + self.settings.look_weight * look
        if self.before is not None and batch.replayed.any():
            with torch.no_grad():
                before = self.logits(self.before, batch[batch.replayed])
            old = by_token(batch.replayed, asked)
            losses[old] += self.settings.distillation * distillation_losses(logits[old], before)
        return (losses * weights).sum()

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """What a network says of the batch's tokens that are asked: [n, codebook] in float32."""
        editor, device = self.editor, self.editor.device
        source, target, hidden, asked = (x.to(device) for x in (batch.source, batch.target, batch.hidden, batch.asked))
        height, width = (editor.vq.config.factor * side for side in source.shape[1:])
        micro = picture_conditions(width, height, len(batch), device)
        with torch.no_grad():
            text = editor.text_encoder(batch.texts)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            logits = network(
                target.masked_fill(hidden, editor.mask_token_id), text, batch.timestep.to(device), source=source,
                micro_conditions=micro, only=asked,
            )  # fmt: skip
        return logits.float()


def distillation_losses(logits: Tensor, before: Tensor) -> Tensor:
    """How far a network has gone from what it was, for every token that is asked: KL(before ‖ now) in nats.

    Learning without forgetting (Li and Hoiem, 2016): what the network said before, with all its doubts, tells more of
    an old edit than the one token that came. logits, before: [n, codebook]; returns [n].
    """
    return F.kl_div(logits.log_softmax(dim=-1), before.log_softmax(dim=-1), log_target=True, reduction="none").sum(-1)
