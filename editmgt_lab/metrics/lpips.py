"""LPIPS: how different two pictures look to a network that was trained on photographs (Zhang et al. 2018).

The networks that its authors calibrated, AlexNet and VGG-16, come from torchvision in every library that has LPIPS, and
nothing here may need torchvision; so they are written out below, in torchvision's names, and this file is the whole
metric. The weights are no part of this repository. Make their folder once, from torchvision's and the authors' files:

    python -m editmgt_lab.metrics.lpips alexnet-owt-7be5be79.pth lpips/weights/v0.1/alex.pth FOLDER
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints import load_module, resolve, save
from ..errors import CheckpointError, command

# Channel shifts and scales of the authors' input layer, for pictures in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST = {"alex": 31, "vgg": 16}  # px: a smaller picture leaves a layer nothing to look at
# A convolution is (channels, kernel, stride, padding) and has a ReLU behind it; a max pooling is (kernel, stride).
NETWORKS = {
    "alex": [(64, 11, 4, 2), (3, 2), (192, 5, 1, 2), (3, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)],
    "vgg": [
        *[(64, 3, 1, 1)] * 2, (2, 2), *[(128, 3, 1, 1)] * 2, (2, 2), *[(256, 3, 1, 1)] * 3, (2, 2),
        *[(512, 3, 1, 1)] * 3, (2, 2), *[(512, 3, 1, 1)] * 3,
    ],
}  # fmt: skip
TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}  # the ReLUs that are compared


class LPIPS(nn.Module):
    """features: the network, as torchvision numbers it; lins: the authors' weight for each channel of each tap."""

    def __init__(self, network: str = "alex"):
        super().__init__()
        if network not in NETWORKS:
            raise CheckpointError(
                f"unknown LPIPS network {network!r}", expected=f"one of {list(NETWORKS)}", fix="correct config.json"
            )
        self.network, self.taps, self.smallest = network, TAPS[network], SMALLEST[network]
        layers: list[nn.Module] = []
        widths = [3]
        for layer in NETWORKS[network]:
            if len(layer) == 2:
                layers.append(nn.MaxPool2d(*layer))
                continue
            channels, kernel, stride, padding = layer
            layers += [nn.Conv2d(widths[-1], channels, kernel, stride, padding), nn.ReLU()]
            widths += [channels, channels]
        self.features = nn.Sequential(*layers)
        channels = [layers[tap - 1].out_channels for tap in self.taps]
        self.lins = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in channels)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> LPIPS:
        """From a folder that `convert` made, or such a folder on the hub. Raises CheckpointError."""
        return load_module(lambda config: cls(config.get("network", "alex")), resolve(source), device=device)

    @torch.no_grad()
    def maps(self, output: Tensor, reference: Tensor) -> list[Tensor]:
        """[B, 3, H, W] in [0, 1] twice → for each tap the weighted squared difference, [B, h, w]."""
        numbers = torch.tensor((SHIFT, SCALE), dtype=torch.float32, device=output.device)
        shift, scale = numbers.view(2, 1, 3, 1, 1)
        x = (torch.cat([output, reference]).float() * 2 - 1 - shift) / scale
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                a, b = (x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)).chunk(2)
                maps.append(self.lins[self.taps.index(index)]((a - b).square())[:, 0])
        return maps

    def forward(self, output: Tensor, reference: Tensor) -> Tensor:
        """The distance of whole pictures, [B]: the sum over taps of the maps' means."""
        return sum(each.mean(dim=(1, 2)) for each in self.maps(output, reference))

    def spatial(self, output: Tensor, reference: Tensor) -> Tensor:
        """The distance at each pixel, [B, H, W]: the maps, resized bilinearly to the pictures, and summed."""
        size = output.shape[-2:]
        resized = [F.interpolate(each[:, None], size=size, mode="bilinear") for each in self.maps(output, reference)]
        return torch.cat(resized, dim=1).sum(dim=1)


def convert(backbone: Path, lins: Path, folder: Path) -> None:
    """Write the folder that `from_pretrained` reads: config.json and safetensors.

    backbone: torchvision's alexnet or vgg16 file, of which the features are taken; lins: the authors' file of the same
    network (v0.1), with names such as lin0.model.1.weight. Both are read as plain tensors: no code in them is run.
    Raises CheckpointError.
    """
    found = _read(backbone) | _read(lins)
    weights = {name: value for name, value in found.items() if name.startswith("features.")}
    weights |= {
        f"lins.{name[3]}.weight": value
        for name, value in found.items()
        if name.startswith("lin") and name.endswith(".model.1.weight")
    }
    for network in NETWORKS:
        module = LPIPS(network)
        if {name: value.shape for name, value in module.state_dict().items()} == {
            name: value.shape for name, value in weights.items()
        }:
            module.load_state_dict(weights)
            save(module, folder, {"network": network})
            return
    raise CheckpointError(
        f"{backbone} and {lins} do not make an LPIPS network",
        expected="torchvision's alexnet with the authors' alex.pth, or vgg16 with vgg.pth",
        fix="take both files of one network; version 0.1 of the authors' weights",
    )


def _read(file: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles fail in every way there is
        raise CheckpointError(
            f"{file} cannot be read: {error}", expected="a PyTorch file of tensors", fix="download it again"
        ) from error
    if isinstance(found, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        return found
    raise CheckpointError(
        f"{file} holds no named tensors", expected="a PyTorch file, name → tensor", fix="take the published file"
    )


@command
def main(arguments: list[str] | None = None) -> None:
    """Convert the published files."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.metrics.lpips", description=__doc__.split("\n")[0])
    parser.add_argument("backbone", type=Path, help="torchvision's alexnet or vgg16 file")
    parser.add_argument("lins", type=Path, help="the authors' alex.pth or vgg.pth, version 0.1")
    parser.add_argument("folder", type=Path, help="where to write config.json and the safetensors")
    options = parser.parse_args(arguments)
    convert(options.backbone, options.lins, options.folder)
    print("saved:", options.folder)


if __name__ == "__main__":
    raise SystemExit(main())
