"""LoRA on the transformer: a small adapter learns, the weights stay; on both branches, or on the source's alone."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CheckpointError, SettingError
from ..transformer import MaskedGenerativeTransformer

WEIGHTS = "adapter_model.safetensors"  # peft's names
# Every linear layer inside the blocks that works on pictures, and those that work on text alone.
PICTURE_LAYERS = (
    r"(single_)?transformer_blocks\.\d+\."
    r"(attn\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.0\.proj|ff\.net\.2|proj_mlp|proj_out)"
)
TEXT_LAYERS = (
    r"transformer_blocks\.\d+\.(attn\.(add_[qkv]_proj|to_add_out)|ff_context\.net\.0\.proj|ff_context\.net\.2)"
)
BRANCHES = {"both": f"{PICTURE_LAYERS}|{TEXT_LAYERS}", "source": PICTURE_LAYERS}


class SourceRows:
    """Confines LoRA layers to the rows of the source, so that text and image run on the weights as they were.

    A block tells, as it begins, how many of its last rows are the source's; before LoRA's first matrix all others are
    set to zero, and since neither of its matrices has a bias, nothing is added there. Without a source nothing is added
    at all: text to image stays exactly what it was.
    """

    def __init__(self, transformer: MaskedGenerativeTransformer):
        self.now = threading.local()  # a widget and a cell may use one network at a time
        for block in transformer.blocks:
            block.register_forward_pre_hook(self.look)
        for layer in lora_layers(transformer):
            for first in layer.lora_A.values():
                first.register_forward_pre_hook(self.confine)

    def __deepcopy__(self, memo: dict) -> SourceRows:
        return self  # what it knows lasts for one block, in one thread: copies of a network can share it

    def look(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        """The streams of a block's inputs: image (with text, in single-modal blocks) and, in an edit, source."""
        streams = next(value for value in inputs if isinstance(value, list))
        self.now.rows = streams[1].shape[1] if len(streams) > 1 else 0

    def confine(self, first: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        """[B, rows, D] → the same, zero in all rows but the source's."""
        (x,) = inputs
        rows = torch.arange(x.shape[1], device=x.device)
        return x * (rows >= x.shape[1] - self.now.rows)[:, None]


def lora_layers(transformer: nn.Module) -> list[LoraLayer]:
    return [module for module in transformer.modules() if isinstance(module, LoraLayer)]


def add_adapter(transformer: MaskedGenerativeTransformer, *, rank: int, branch: str = "both", seed: int = 0) -> None:
    """Put a fresh adapter on the transformer, which changes nothing yet; from here on only the adapter learns.

    rank: of every layer's update, 1 or more; its strength alpha is 2 · rank. branch: "both", or "source", after
    OminiControl and the released code: the image's and the text's rows then keep the base's weights, and training and
    inference run the same code. Raises SettingError.
    """
    if rank < 1 or branch not in BRANCHES:
        raise SettingError(
            f"rank is {rank}, branch {branch!r}",
            expected=f"a rank of 1 or more, and one of {', '.join(BRANCHES)}",
            fix="rank 8 on both branches is usual",
        )
    if lora_layers(transformer):
        raise SettingError(
            "this transformer has an adapter already", expected="one at most", fix="load the editor anew, or remove it"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=BRANCHES[branch])
        inject_adapter_in_model(config, transformer)
    if branch == "source":
        SourceRows(transformer)
    transformer.adapter = {"rank": rank, "branch": branch}


def save_adapter(transformer: MaskedGenerativeTransformer, folder: Path) -> Path:
    """Write the adapter alone, under peft's file name, with what it was made for. Returns the file."""
    if not lora_layers(transformer):
        raise SettingError(
            "this transformer has no adapter", expected="one to save", fix="fine-tune with a rank, or save the editor"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(transformer).items()}
    metadata = {name: str(value) for name, value in transformer.adapter.items()} | {"base": fingerprint(transformer)}
    save_file(tensors, folder / WEIGHTS, metadata)
    return folder / WEIGHTS


def load_adapter(transformer: MaskedGenerativeTransformer, folder: Path) -> None:
    """Put a saved adapter on the transformer that it was made for.

    Raises CheckpointError for a file that is none, and for an adapter of another model, before anything is changed.
    """
    file = Path(folder) / WEIGHTS
    try:
        with safe_open(file, framework="pt") as opened:
            metadata, tensors = opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}
        rank, branch, base = int(metadata["rank"]), metadata["branch"], metadata["base"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{file} is no adapter: {error}",
            expected=f"a folder with {WEIGHTS}, as save_adapter writes it",
            fix="check the path; an adapter for other tools has to be converted",
        ) from error
    if base != fingerprint(transformer):
        raise CheckpointError(
            f"{file} was made for another model",
            expected="the model that it was fine-tuned from",
            fix="load that model first, then the adapter",
        )
    add_adapter(transformer, rank=rank, branch=branch)
    set_peft_model_state_dict(transformer, tensors)


def fingerprint(transformer: MaskedGenerativeTransformer) -> str:
    """Tells one base from another, whatever precision it is loaded in: of its sizes and of some of its weights."""
    weights = transformer.project_from_hidden.weight.detach().to("cpu", torch.bfloat16).view(torch.int16)
    return hashlib.sha256(repr(asdict(transformer.config)).encode() + weights.numpy().tobytes()).hexdigest()[:16]
