"""A folder or a hub name becomes modules: safetensors only, every name and shape checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from .basics.depth import check_depth
from .basics.devices import choose_device
from .basics.dtypes import Dtype, choose_dtype
from .basics.folders import check_plain, files_in, write_text, written_into
from .basics.offload import STORED_DTYPES, Stored
from .errors import CheckpointError, LabError
from .plain_text import one_line

Module = TypeVar("Module", bound=nn.Module)

WEIGHTS = "diffusion_pytorch_model.safetensors"
_STEMS = ("diffusion_pytorch_model", "model")  # diffusers' name and transformers'
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_PROGRESS_FROM = 100_000_000  # bytes: less than this loads before a bar could be read
_SHOWN = 10


def data_folder() -> Path:
    """The folder of sample pictures and of the small model, in a checkout as in an installed wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data_samples", package.parent / "data_samples"):
        if folder.is_dir():
            return folder
    raise CheckpointError(
        "the folder data_samples is missing",
        expected=f"it beside the package, in {package.parent}, or inside it",
        fix="clone the repository or install the package again",
    )


def resolve(source: str | os.PathLike[str], *, parts: Sequence[str] | None = None) -> Path:
    """The local folder of a checkpoint.

    source: "tiny" (the small model that comes along), a local folder, or a hub name such as "WeiChow/EditMGT", which
    is downloaded into the hub's cache unless it is there already. parts: the sub-folders to download (None: all).
    Raises CheckpointError.
    """
    if source == "tiny":
        folder = data_folder() / "tiny"
        if folder.is_dir():
            return folder
        raise CheckpointError(
            "the small model is missing", expected=f"the folder {folder}", fix="clone again, or train it: make train"
        )
    path = Path(source) if isinstance(source, (str, os.PathLike)) else Path(f"a {type(source).__name__}")
    with suppress(OSError, RuntimeError, ValueError):  # too long, of no user here, with a null in it
        path = path.expanduser()
    if os.path.isdir(path):
        return path
    there = os.path.exists(path)
    if isinstance(source, str) and not there and _HUB_NAME.fullmatch(source):
        return _download(source, parts)
    raise CheckpointError(
        f"{str(path)!r} is {'a file' if there else 'no folder here'}",
        expected='"tiny", a local folder, or a hub name such as "WeiChow/EditMGT"',
        fix="check the path, or pass the folder that holds the file",
    )


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration in the folder's config.json. Raises CheckpointError."""
    return read_json(Path(folder) / "config.json")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError."""
    try:
        check_plain(file, CheckpointError)
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = f"{file} is missing"
    except (OSError, RecursionError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        problem = f"{file} is not JSON: {error}"
    else:
        if isinstance(content, dict):
            return content
        problem = f"{file} holds a {type(content).__name__}"
    raise CheckpointError(
        problem,
        expected="a checkpoint's folder in diffusers' layout, its configuration as a JSON object",
        fix="check the path: the released layout has one sub-folder per part, such as vqvae/",
    )


def read_weights(
    folder: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: Dtype | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Every tensor of a folder's safetensors files, single or sharded, by name.

    On the CPU tensors stay memory-mapped: they are read from disk when first used. dtype: of the floating-point
    tensors, see dtypes.choose_dtype (None: as stored). progress: a bar where there are more than 100 MB. Raises
    CheckpointError, and SettingError for a dtype that is none.
    """
    dtype = choose_dtype(dtype)
    files = weight_files(folder)
    total = sum(file.stat().st_size for file in files)
    weights = {}
    with tqdm(
        total=total, desc=f"loading {one_line(Path(folder).name)}", unit="B", unit_scale=True, leave=False,
        disable=not progress or not is_large(files),
    ) as bar:  # fmt: skip
        for file in files:
            with _opened(file) as shard:
                for name in shard.keys():
                    stored = shard.get_tensor(name)
                    weights[name] = stored.to(device, dtype if stored.is_floating_point() else None)
                    bar.update(stored.nbytes)
    return weights


def is_large(files: Iterable[Path]) -> bool:
    """Whether reading these files takes so long that it should show its progress."""
    return sum(file.stat().st_size for file in files) >= _PROGRESS_FROM


def weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The safetensors files that hold a folder's weights: one, or all shards of its index. Raises CheckpointError."""
    folder = Path(folder)
    for stem in _STEMS:
        if (single := folder / f"{stem}.safetensors").is_file():
            return [single]
        if (index := folder / f"{stem}.safetensors.index.json").is_file():
            return _shards(index)
    found = files_in(folder, "*.safetensors", deep=False)
    if len(found) == 1:
        return found
    pickles = [file.name for file in files_in(folder, deep=False) if file.suffix in _PICKLES]
    if found:
        problem, fix = f"{folder} holds several weights: {some(file.name for file in found)}", "keep the one to load"
    elif pickles:
        problem = f"{folder} holds pickled weights only ({some(pickles)}), and loading a pickle can run any code"
        fix = "convert them once where you trust them, with safetensors.torch.save_file"
    else:
        problem = f"{folder} holds no weights" if folder.is_dir() else f"there is no folder {folder}"
        fix = "check the path: the released layout has one sub-folder per part, such as vqvae/"
    raise CheckpointError(problem, expected=f"{WEIGHTS}, or its shards and their index", fix=fix)


def load_into(
    module: Module,
    folder: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    dtype: Dtype | None = None,
    progress: bool = True,
) -> Module:
    """Gives a module the weights of a folder, and returns it.

    The module may have been built on the meta device: it takes the stored tensors themselves, so nothing is held
    twice. device: None leaves the module where it is (from meta: to the CPU). dtype: of the floating-point parameters
    (None: as stored). Names and shapes are compared before any weight is read; CheckpointError counts
    those that are missing, unexpected or of another shape, names the first, and leaves the module as it was.
    """
    _compare(module.state_dict(), stored(folder), Path(folder))
    if device is None:
        device = next((value.device for value in module.state_dict().values()), torch.device("cpu"))
        device = "cpu" if device.type == "meta" else device
    weights = read_weights(folder, device=device, dtype=dtype, progress=progress)
    due = module.state_dict()
    if whole := [name for name in due if due[name].is_floating_point() and not weights[name].is_floating_point()]:
        told = f"{folder} holds no floating-point numbers for {some(whole)}"
        raise CheckpointError(told, expected="weights as they were trained", fix="download or copy them again")
    module.load_state_dict(weights, assign=True)
    return module.to(device)  # buffers that no checkpoint holds


def load_module(
    build: Callable[[dict[str, Any]], Module],
    folder: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    dtype: Dtype | None = None,
) -> Module:
    """A module in evaluation mode, built from the folder's config.json (on the meta device) and given its weights.

    See load_into for device and dtype. Raises CheckpointError, SettingError for a device or dtype that is none, and
    what `build` says of a configuration.
    """
    device = None if device is None else choose_device(device)
    config = read_config(folder)
    check_depth(config, stored(folder), Path(folder))
    try:
        with torch.device("meta"):
            module = build(config)
    except LabError:
        raise
    except Exception as error:  # whatever a layer says of sizes that are none
        raise CheckpointError(
            f"no network can be built from {Path(folder) / 'config.json'}: {error}",
            expected="the configuration that was saved with the weights",
            fix="download or copy it again",
        ) from error
    return load_into(module, folder, device=device, dtype=dtype).eval()


def save(module: nn.Module, folder: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Writes config.json and diffusion_pytorch_model.safetensors, each whole or not at all. Raises DiskError."""
    weights = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with written_into(Path(folder)) as unfinished:
        write_text(unfinished / "config.json", json.dumps(config, indent=2) + "\n")
        save_file(weights, unfinished / WEIGHTS, metadata={"format": "pt"})


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as shard:
            yield shard
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is damaged or cut short: {error}",
            expected="a whole safetensors file",
            fix="download or copy it again (a file of about 130 bytes is a Git LFS pointer: run git lfs pull)",
        ) from error


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise CheckpointError(
            f"{index} does not name its shards",
            expected='a "weight_map" of tensor names to files beside it',
            fix="download it again",
        )
    files = [index.parent / name for name in sorted(set(names))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(files)} shards are missing in {index.parent}: {some(missing)}",
            expected=f"every file that {index.name} names",
            fix="finish the download",
        )
    return files


def stored(folder: str | os.PathLike[str]) -> dict[str, Stored]:
    """What a folder's safetensors files hold, by name; only their headers are read. Raises CheckpointError."""
    found = {}
    for file in weight_files(folder):
        with _opened(file) as shard:
            for name in shard.keys():
                part = shard.get_slice(name)
                found[name] = Stored(file, part.get_shape(), STORED_DTYPES.get(part.get_dtype()))
    return found


def _compare(wanted: Mapping[str, Tensor], stored: Mapping[str, Stored], folder: Path) -> None:
    missing = [name for name in wanted if name not in stored]
    unexpected = [name for name in stored if name not in wanted]
    misshaped = [
        f"{name} {stored[name].shape} instead of {list(value.shape)}"
        for name, value in wanted.items()
        if name in stored and list(value.shape) != stored[name].shape
    ]
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    if any(lists.values()):
        raise CheckpointError(
            f"{folder} does not fit this module\n"
            + "\n".join(f"  {len(names)} {kind}: {some(names)}" for kind, names in lists.items() if names),
            expected=f"the {len(wanted)} names and shapes of the module",
            fix="load the folder that this config.json belongs to, or build the module from the folder's own",
        )


def _download(name: str, parts: Sequence[str] | None) -> Path:
    from huggingface_hub import snapshot_download  # slow to import, and not needed for local folders
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    patterns = list(_HUB_FILES)
    if parts is not None:
        patterns = ["model_index.json", "lab.json", *(f"{part}/{pattern}" for part in parts for pattern in _HUB_FILES)]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except GatedRepoError as error:
        cause, fix = error, "accept its terms on its hub page, then log in: hf auth login"
    except RepositoryNotFoundError as error:
        cause, fix = error, "check the spelling; for a private one log in: hf auth login"
    except Exception as error:  # offline, proxies, full disks: the hub's client passes on every library's own errors
        cause, fix = error, "check the connection, or download it elsewhere and pass the folder"
    reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
    raise CheckpointError(
        f"{name!r} is no folder here and could not be had from the hub: {reason}",
        expected="a local folder, or a hub repository that can be reached",
        fix=fix,
    ) from cause


def some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    shown = list(names)
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
