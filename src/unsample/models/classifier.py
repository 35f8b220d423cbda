"""A small classifier of the 200 Tiny-ImageNet classes at 32x32: features for a Frechet distance, and a judge of classes.

It sees what it was trained on, photographs of 32x32: larger images are averaged down to that size first. Its accuracy stands
on its card, beside its weights, and is far from perfect: read what it says of generated images next to what it says of real
ones. In evaluation its norms are constants, so an image's result does not depend on the batch it comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .._tensors import Images
from ..core.files import expanded, regular
from ..core.model import ClassConditioner
from ..diagnostics._checks import PerImage, blocks, check_images
from ..errors import ArgumentError, ModelError, UnknownNameError, one_line
from .cards import BUNDLED
from .configs import check_config
from .digest import digest_of
from .load import device_of


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is averaged where the block shrinks and projected where it widens."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shrink = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.project = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        inner = self.second_norm(self.second(functional.relu(self.first_norm(self.first(x)))))
        return functional.relu(inner + self.project(self.shrink(x)))


class ResidualNetwork(nn.Module):
    """A convolution, residual blocks, the mean over all positions, a linear head.

    widths: Channels after the convolution and after every block. strides: How much each of them shrinks the image.

    >>> ResidualNetwork(widths=[8, 16], strides=[1, 2], classes=5)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, strides[0], 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        stages = zip(widths[:-1], widths[1:], strides[1:], strict=True)
        self.blocks = nn.Sequential(*(Block(*stage) for stage in stages))
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """What the head sees of images (B, 3, H, W) in [-1, 1]: (B, widths[-1]), not negative."""
        inner: Tensor = self.blocks(functional.relu(self.stem_norm(self.stem(x))))
        return inner.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W) in [-1, 1]."""
        logits: Tensor = self.head(self.features(x))
        return logits


@dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Attributes:
        network: Images at `size` to logits, in evaluation mode.
        classes: Their names; class i is output i.
        size: Side of the images it was trained on.
        device: Where the network lives; results are there, too.
        name, digest: What it is called, and a hash of its weights.
    """

    network: ResidualNetwork = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    size: int
    device: torch.device
    name: str
    digest: str

    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        """What the last, linear layer sees: the features for a Frechet distance.

        Args:
            images: [B, 3, H, W] in [-1, 1], averaged to [B, 3, size, size] by areas. Values beyond [-1, 1] are taken as they
                are; clamp first to judge what a viewer would see.

        Returns:
            [B, D] float32, not negative.

        Raises:
            ArgumentError: Not three channels, or values that are not finite or not images.

        >>> load_classifier().features(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 192])
        """
        return self._in_blocks(self.network.features, images)

    def probabilities(self, images: Images) -> Float[Tensor, "batch classes"]:
        """The probability of every class, [B, classes] float32. Arguments as `features`.

        >>> load_classifier().probabilities(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 200])
        """
        return self._in_blocks(lambda x: self.network(x).softmax(dim=1), images)

    def class_alignment(self, images: Images, labels: Sequence[int | str] | Int[Tensor, " batch"]) -> PerImage:
        """The probability it gives the wanted class of each image: 1 / classes by chance.

        Args:
            images: As for `features`.
            labels: A class per image, by index or by name.

        Returns:
            [B] float32 in [0, 1]. Compare with real images of the same classes (the card has their mean), not with 1.

        Raises:
            ArgumentError: As for `features`; a label that is no class, or not one label per image.

        >>> load_classifier().class_alignment(torch.zeros(2, 3, 32, 32), ["goldfish", 7]).shape
        torch.Size([2])
        """
        wanted = labels.tolist() if isinstance(labels, Tensor) else list(labels)
        if len(wanted) != len(images):
            raise ArgumentError(f"labels: expected one per image, given {len(wanted)} for {len(images)} images; repeat them")
        index = ClassConditioner(self.classes, null=None)(wanted, self.device)
        return self.probabilities(images).gather(1, index[:, None])[:, 0]

    @torch.no_grad()
    def _in_blocks(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return torch.cat([function(part) for part in self._parts(images)])

    def _parts(self, images: Tensor) -> Iterator[Tensor]:
        """The images as the network takes them, a few at a time."""
        check_images(images, "images")
        if images.shape[1] != 3:
            raise ArgumentError(f"images: expected 3 channels (RGB), given {tuple(images.shape)}; expand grey ones")
        widest = self.network.stem.out_channels * self.size**2
        for part in blocks(len(images), max(images[0].numel(), widest)):
            taken = images[part].detach().to(self.device, torch.float32)
            fits = taken.shape[2:] == (self.size, self.size)
            yield taken if fits else functional.interpolate(taken, (self.size, self.size), mode="area")


def load_classifier(name: str = "tiny-imagenet-32-classifier", *, device: str | torch.device = "auto") -> Classifier:
    """A classifier by name, or from a directory with `config.json` and `model.safetensors`.

    Args:
        name: `tiny-imagenet-32-classifier`, which comes with unsample, or a directory as `training/classifier.py` writes it.
        device: `auto` takes a GPU if there is one.

    Raises:
        ModelError: Its files are missing or damaged.
        UnknownNameError: Neither a bundled classifier nor a directory.

    >>> load_classifier(device="cpu").size
    32
    """
    bundled = name == "tiny-imagenet-32-classifier"
    folder = BUNDLED / name if bundled else expanded(name)
    if not folder.is_dir() and not bundled:
        raise UnknownNameError("classifier", name, ["tiny-imagenet-32-classifier"])
    for part in ("config.json", "model.safetensors"):
        if not (folder / part).is_file():
            raise ModelError(f"cannot load the classifier {name!r}: expected {part} in {folder}; install or save it again")
    chosen = device_of(device)
    try:
        network, names, size = _read(folder)
    except Exception as error:  # json, safetensors and torch each raise their own
        raise ModelError(f"cannot load the classifier {name!r}: {one_line(error)}") from None
    return Classifier(network.to(chosen), names, size, chosen, name if bundled else folder.name, digest_of(network))


def _read(folder: Path) -> tuple[ResidualNetwork, tuple[str, ...], int]:
    from safetensors.torch import load_file

    config = check_config(folder / "config.json")
    missing = {"model", "names", "size"} - set(config)
    if missing:
        raise ValueError(f"config.json lacks {', '.join(sorted(missing))}")
    names, size = tuple(map(str, config["names"])), int(config["size"])
    weights = {key: tensor.float() for key, tensor in load_file(regular(folder / "model.safetensors")).items()}
    astray = [key for key, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if astray:
        raise ValueError(f"values that are not finite in {', '.join(astray)}")
    with torch.device("meta"):  # neither time nor random numbers for weights that are replaced
        network = ResidualNetwork(**config["model"])
    network.load_state_dict(weights, assign=True)
    if len(names) != network.head.out_features or size < 1:
        raise ValueError(f"config.json names {len(names)} classes for {network.head.out_features} outputs, size {size}")
    return network.eval().requires_grad_(False), names, size
