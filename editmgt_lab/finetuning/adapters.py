"""LoRA on the transformer: a small adapter learns, the weights stay; on both branches, or on the source's alone."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..basics.checks import check_name, check_number
from ..basics.fingerprints import fingerprint
from ..basics.folders import plain, write_tensors
from ..checkpoints import some
from ..errors import CheckpointError, LabError, SettingError
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
# What an adapter's file says of its base: a fingerprint of all weights, rounded as one of these may have loaded them. A
# model in float32 is compared by the first.
PRECISIONS = {"base_weights": torch.bfloat16, "base_weights_float16": torch.float16}
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
    check_number(rank, "rank", 1, math.inf, "8 is usual", whole=True)
    check_name(branch, "branch", BRANCHES)
    _refuse_second(transformer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=BRANCHES[branch])
        inject_adapter_in_model(config, transformer)
    if branch == "source":
        SourceRows(transformer)
    transformer.adapter = {"rank": rank, "branch": branch}


def save_adapter(transformer: MaskedGenerativeTransformer, folder: Path) -> Path:
    """Write the adapter alone, under peft's file name, with what it was made for. Returns the file.

    Raises SettingError where there is none.
    """
    if not lora_layers(transformer):
        raise SettingError(
            "this transformer has no adapter", expected="one to save", fix="fine-tune with a rank, or save the editor"
        )
    tensors = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(transformer).items()}
    metadata = {name: str(value) for name, value in transformer.adapter.items()}
    return _write(Path(folder), tensors, metadata | base_fingerprints(transformer))


def load_adapter(transformer: MaskedGenerativeTransformer, folder: Path) -> None:
    """Put a saved adapter on the transformer that it was made for: all of it, or an error and nothing is changed.

    Raises CheckpointError for a file that is no adapter, or not a whole one, and for an adapter of another model;
    SettingError where the transformer has an adapter already.
    """
    _refuse_second(transformer)
    file = Path(folder) / WEIGHTS
    metadata, tensors, rank, branch = _read(file)
    _check_base(file, metadata, transformer)
    _check_whole(file, tensors, adapter_shapes(transformer, rank, branch))
    learned = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    try:
        add_adapter(transformer, rank=rank, branch=branch)
        set_peft_model_state_dict(transformer, tensors)
    except BaseException as error:  # an interrupt too leaves no half of an adapter behind
        remove_adapter(transformer)
        transformer.requires_grad_(False)
        for parameter in learned:
            parameter.requires_grad_(True)
        if not isinstance(error, Exception) or isinstance(error, LabError):
            raise
        raise CheckpointError(
            f"{file} could not be put on the transformer, which is as it was before: {error}",
            expected="room for its tensors",
            fix="free some memory, and load it again",
        ) from error


def remove_adapter(transformer: MaskedGenerativeTransformer) -> None:
    """Take the adapter off: the transformer is as it was before it had one, and all its weights learn. Without one,
    nothing happens."""
    for name, module in list(transformer.named_modules()):
        if isinstance(module, LoraLayer):
            parent, _, last = name.rpartition(".")
            setattr(transformer.get_submodule(parent), last, module.get_base_layer())
    for block in transformer.blocks:
        for key, hook in list(block._forward_pre_hooks.items()):
            if isinstance(getattr(hook, "__self__", None), SourceRows):
                del block._forward_pre_hooks[key]
    if hasattr(transformer, "peft_config"):  # peft's own note
        del transformer.peft_config
    if hasattr(transformer, "adapter"):
        del transformer.adapter
        transformer.requires_grad_(True)


def stamp_adapter(transformer: MaskedGenerativeTransformer, folder: Path) -> Path:
    """Write into a saved adapter that it was made for this transformer; its tensors stay as they are, byte for byte.

    For adapters that were saved before their file said so, by whoever knows that it is true. Returns the file.
    Raises CheckpointError for a file that is no whole adapter of such a transformer.
    """
    file = Path(folder) / WEIGHTS
    metadata, tensors, rank, branch = _read(file)
    _check_whole(file, tensors, adapter_shapes(transformer, rank, branch))
    return _write(Path(folder), tensors, {"rank": str(rank), "branch": branch} | base_fingerprints(transformer))


def adapter_shapes(transformer: MaskedGenerativeTransformer, rank: int, branch: str) -> dict[str, list[int]]:
    """The name and shape of every tensor of an adapter: [rank, in] and [out, rank] for each layer it works on."""
    shapes = {}
    for name, module in _base_modules(transformer):
        if isinstance(module, nn.Linear) and re.fullmatch(BRANCHES[branch], name):
            shapes[f"{name}.lora_A.weight"] = [rank, module.in_features]
            shapes[f"{name}.lora_B.weight"] = [module.out_features, rank]
    return shapes


def base_fingerprints(transformer: MaskedGenerativeTransformer) -> dict[str, str]:
    """Of all of the base's weights and sizes, an adapter left out: one for each precision that it may be loaded in."""
    return {name: base_fingerprint(transformer, dtype) for name, dtype in PRECISIONS.items()}


def base_fingerprint(transformer: MaskedGenerativeTransformer, dtype: torch.dtype = torch.bfloat16) -> str:
    """Tells one base from another, with an adapter on it or without. dtype: what its weights are first turned to."""
    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in transformer.state_dict().items()
        if ".lora_" not in name
    }
    return fingerprint(asdict(transformer.config), weights, dtype=dtype)


def _base_modules(transformer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules under the names that they have without an adapter."""
    for name, module in transformer.named_modules():
        if ".lora_" not in name and not isinstance(module, LoraLayer):
            yield name.removesuffix(".base_layer"), module


def _refuse_second(transformer: nn.Module) -> None:
    if lora_layers(transformer):
        raise SettingError(
            "this transformer has an adapter already",
            expected="one at most",
            fix="load the editor anew, or take it off with finetuning.remove_adapter(editor.transformer)",
        )


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor], int, str]:
    """Metadata, tensors, rank and branch of an adapter's file. Raises CheckpointError."""
    try:
        with safe_open(plain(file), framework="pt") as opened:
            metadata, tensors = opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}
        rank, branch = int(metadata["rank"]), metadata["branch"]
        if rank < 1 or branch not in BRANCHES:
            raise ValueError(f"its rank is {rank} and its branch {branch!r}")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{file} is no adapter: {error}",
            expected=f"a folder with {WEIGHTS}, as save_adapter writes it",
            fix="check the path; an adapter for other tools has to be converted",
        ) from error
    return metadata, tensors, rank, branch


def _check_base(file: Path, metadata: Mapping[str, str], transformer: MaskedGenerativeTransformer) -> None:
    if not PRECISIONS.keys() & metadata.keys():
        raise CheckpointError(
            f"{file} does not say which weights it was made for",
            expected="an adapter that save_adapter wrote, with the fingerprint of its base",
            fix="if you know that it is this model: finetuning.stamp_adapter(editor.transformer, folder), once",
        )
    dtype = transformer.project_to_hidden.weight.dtype
    name = next((name for name, each in PRECISIONS.items() if each == dtype), next(iter(PRECISIONS)))
    if metadata.get(name) != base_fingerprint(transformer, PRECISIONS[name]):
        raise CheckpointError(
            f"{file} was made for another model",
            expected="the model that it was fine-tuned from, with every weight as it was then",
            fix="load that model first, then the adapter",
        )


def _check_whole(file: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, list[int]]) -> None:
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    wrong = {
        "missing": [name for name in shapes if name not in found],
        "unexpected": [name for name in found if name not in shapes],
        "of another shape": [
            f"{name} {found[name]} instead of {shape}"
            for name, shape in shapes.items()
            if found.get(name, shape) != shape
        ],
        "of whole numbers": [name for name, each in tensors.items() if not each.is_floating_point()],
        "with values that are no numbers": [
            name for name, each in tensors.items() if each.is_floating_point() and not each.double().isfinite().all()
        ],
    }
    if any(wrong.values()):
        raise CheckpointError(
            f"{file} is no whole adapter of this transformer, which stays as it is\n"
            + "\n".join(f"  {len(names)} {kind}: {some(names)}" for kind, names in wrong.items() if names),
            expected=f"the {len(shapes)} tensors of its rank and branch, floating-point numbers, each in its shape",
            fix="copy it again, or save it again from where it was trained",
        )


def _write(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    write_tensors(folder / WEIGHTS, tensors, metadata)
    return folder / WEIGHTS
