"""The text encoder of a checkpoint's folder, with its weights in memory, or read whenever a layer runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..basics.depth import check_depth, check_kernels
from ..basics.devices import choose_device
from ..basics.dtypes import Dtype, choose_dtype
from ..basics.folders import check_texts_of
from ..basics.lazy import LOADING, transformers
from ..basics.offload import main_dtype, parameters_on_meta, read_on_use
from ..checkpoints import is_large, read_config, stored, weight_files
from ..errors import CheckpointError
from .encoding import TextEncoder, padded, token_count


def load_text_encoder(
    folder: str | os.PathLike[str],
    *,
    architecture: str = "CLIP",
    mask_padding: bool = False,
    device: torch.device | str | None = None,
    dtype: Dtype | None = None,
    offload: bool = False,
) -> TextEncoder:
    """The text encoder in a checkpoint folder: CLIP in `text_encoder/`, the language model in `llm_encoder/`.

    architecture: the transformer's `text_encoder_architecture`: "CLIP" is CLIP alone, "CLIP_Gemma2" has the language
    model beside it. mask_padding: see TextEncoder. dtype: of the weights, see dtypes.choose_dtype; None is as stored;
    buffers, such as rotary frequencies, stay in float32. offload: hold no weights, but read each layer's from its file
    whenever it runs, to `device`, and drop them after it. Raises CheckpointError, and SettingError for a device or
    dtype that is none.
    """
    device, dtype = choose_device("cpu" if device is None else device), choose_dtype(dtype)
    if architecture not in ("CLIP", "CLIP_Gemma2"):
        raise CheckpointError(
            f"{folder} wants the text encoder {architecture!r}",
            expected="text_encoder_architecture 'CLIP' or 'CLIP_Gemma2'",
            fix="use a checkpoint of EditMGT or of this lab",
        )
    folder = Path(folder)

    def network(kind: Any, part: str) -> nn.Module:
        if not offload:
            return _cast(_pretrained(kind, folder / part), folder / part, dtype).to(device)
        module = _without_weights(kind, folder / part)
        return read_on_use(_cast(module, folder / part, dtype), folder / part, stored(folder / part), device)

    parts = [network(transformers().CLIPTextModelWithProjection, "text_encoder"), _tokenizer(folder / "tokenizer")]
    if architecture == "CLIP_Gemma2":
        parts += [network(transformers().AutoModel, "llm_encoder"), _tokenizer(folder / "llm_encoder")]
    return TextEncoder(*parts, mask_padding=mask_padding, device=device if offload else None).eval()


def _cast(module: nn.Module, folder: Path, dtype: torch.dtype | None) -> nn.Module:
    """Its weights in this dtype, None as stored; not its buffers, such as the frequencies of rotary positions."""
    dtype = dtype or main_dtype(stored(folder).values())
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module


def _without_weights(kind: Any, folder: Path) -> nn.Module:
    """A model of transformers on the meta device, but for its buffers."""
    _checked(kind, folder)
    try:
        config = transformers().AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with _quiet_transformers(progress=False), parameters_on_meta():
            return kind.from_config(config, trust_remote_code=False) if hasattr(kind, "from_config") else kind(config)
    except Exception as error:  # as below
        raise _unloadable(folder, error) from error


def _pretrained(kind: Any, folder: Path) -> nn.Module:
    """A model of transformers from safetensors, every name and shape checked."""
    _checked(kind, folder)
    try:
        with _quiet_transformers(progress=is_large(weight_files(folder))):
            module, report = kind.from_pretrained(
                folder,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:  # transformers passes on the errors of every library below it
        raise _unloadable(folder, error) from error
    misshaped = [f"{name} {list(stored)} instead of {list(due)}" for name, stored, due in report["mismatched_keys"]]
    unexpected = [name for name in report["unexpected_keys"] if not name.startswith("lm_head")]  # a head is not needed
    problems = {"missing": sorted(report["missing_keys"]), "unexpected": unexpected, "of another shape": misshaped}
    if any(problems.values()):
        raise CheckpointError(
            f"{folder} does not fit its config.json\n"
            + "\n".join(f"  {len(names)} {kind}: {', '.join(names)}" for kind, names in problems.items() if names),
            expected="the weights that belong to it",
            fix="download or copy both again",
        )
    return module


def _checked(kind: Any, folder: Path) -> None:
    """Raises CheckpointError unless files and configuration are such that it is safe to let transformers read them."""
    check_texts_of(folder, CheckpointError)
    config, tensors = read_config(folder), stored(folder)  # refuses pickles
    check_depth(config, tensors, folder)
    check_kernels(config, folder / "config.json")
    try:
        with _quiet_transformers(progress=False):
            _try_out(kind, folder, sum(math.prod(each.shape) for each in tensors.values()))
    except Exception as error:  # as in `_pretrained`
        raise _unloadable(folder, error) from error


def _try_out(kind: Any, folder: Path, count: int) -> None:
    """Raises ValueError where the configuration describes a network of more values than are stored, and whatever the
    network raises whose numbers do not fit each other, before any of it takes memory."""
    config = transformers().AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        module = kind.from_config(config, trust_remote_code=False) if hasattr(kind, "from_config") else kind(config)
    due = sum(value.numel() for value in module.state_dict().values())
    if due > 2 * count:
        raise ValueError(f"its config.json describes {due:,} values, and {count:,} are stored")
    if kind is transformers().CLIPTextModelWithProjection:  # others want a real device in transformers 5.2
        with torch.no_grad():
            module.eval()(input_ids=torch.zeros(1, 2, dtype=torch.long, device="meta"))


def _unloadable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{folder} cannot be loaded: {error}",
        expected="a model saved by transformers",
        fix="download or copy it again",
    )


def _tokenizer(folder: Path) -> Any:
    check_texts_of(folder, CheckpointError)
    try:
        tokenizer = transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        padded(tokenizer, ["a word"], 64)  # what its configuration says wrongly shows at first use, in either way
        token_count(tokenizer, "a word")
        return tokenizer
    except Exception as error:  # as above
        raise CheckpointError(
            f"{folder} holds no tokenizer that can be loaded: {error}",
            expected="a folder with tokenizer_config.json and the vocabulary",
            fix="check the path, or download it again",
        ) from error


@contextmanager
def _quiet_transformers(*, progress: bool) -> Iterator[None]:
    """Without its own reports, which the errors here repeat, and without a bar for small files; for one thread at a
    time, since all of them have the same settings."""
    with LOADING:
        logging = transformers().utils.logging
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        if not progress:
            logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
