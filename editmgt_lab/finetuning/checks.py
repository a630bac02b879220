"""What a fine-tuning refuses before it touches its editor or its folder."""

from __future__ import annotations

from accelerate import PartialState

from ..data.tokens import TokenPairs
from ..editor import Editor
from ..errors import DataError, SettingError, ShapeError
from ..training.build import check_in_memory
from .adapters import lora_layers
from .settings import FinetuneSettings


def check_start(
    editor: Editor,
    settings: FinetuneSettings,
    pairs: TokenPairs,
    *,
    replay: TokenPairs | None,
    validation: TokenPairs | None,
) -> None:
    """Raises SettingError for an editor that cannot be trained as it is or in this process, or saved afterwards, for a
    patience with nothing to validate on, and for old pairs that no batch has room for; DataError for no pairs,
    ShapeError for pairs to replay of another grid."""
    if lora_layers(editor.transformer):
        raise SettingError(
            "this editor has an adapter already, and neither its weights nor a second adapter are trained with it",
            expected="an editor as it was loaded",
            fix="load it anew, or take the adapter off: finetuning.remove_adapter(editor.transformer)",
        )
    if not len(pairs):
        raise DataError("there is no pair to learn from", expected="one or more", fix="check where they come from")
    if replay and pairs.source.shape[1:] != replay.source.shape[1:]:
        grids = ["×".join(map(str, each.source.shape[1:])) for each in (pairs, replay)]
        raise ShapeError(
            f"pairs of {grids[0]} tokens, and {grids[1]} of those to replay",
            expected="one grid, since they come in one batch",
            fix="tokenize all of them with one editor",
        )
    if replay and settings.batch == 1:
        raise SettingError(
            "a batch of 1 has no room for pairs to replay beside a new one",
            expected="a batch of 2 or more",
            fix="take a larger batch, or replay_share=0",
        )
    if settings.patience is not None and not validation:
        raise SettingError(
            f"patience is {settings.patience}, and there are no pairs to validate on",
            expected="some that are kept back, as the command does of 20 pairs or more",
            fix="pass validation=…, or leave patience out",
        )
    check_in_memory(editor.text_encoder)
    _check_device(editor)


def _check_device(editor: Editor) -> None:
    """accelerate chooses a device once for all that a process trains, and would move the editor there."""
    own, chosen = editor.device.type, PartialState(cpu=editor.device.type == "cpu").device.type
    if own != chosen:
        raise SettingError(
            f"the editor is on {own}, and this process trains on {chosen}",
            expected="one kind of device for all that is fine-tuned in one process",
            fix=f"restart the kernel to fine-tune on {own}, or load the editor on {chosen}",
        )
