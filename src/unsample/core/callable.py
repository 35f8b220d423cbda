"""Any function or module as the network of a model; `unsample.Model.from_callable` says which."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError


@dataclass(frozen=True)
class AnyNetwork:
    """A network called in its own dtype, with or without the condition; its prediction has x's shape and dtype.

    Attributes:
        net: (x, t), or (x, t, condition), to a tensor, a tuple that begins with one, or an object that has one in `.sample`.
        takes_condition: Whether it is given the condition.
    """

    net: Callable[..., Any]
    takes_condition: bool

    @classmethod
    def of(cls, net: Callable[..., Any], *, has_conditions: bool) -> AnyNetwork:
        """With conditions, `net` must take three arguments; without, the third is left out, or None where it is required.

        Raises:
            ArgumentError: A network that does not take these arguments.
        """
        if isinstance(net, torch.nn.Module):
            net.eval()
        two, three = can_be_called(net, 2), can_be_called(net, 3)
        if not three and (has_conditions or not two):
            wanted = "(x, t, condition)" if has_conditions else "(x, t)"
            name = getattr(net, "__name__", type(net).__name__)
            raise ArgumentError(f"expected a network that can be called with {wanted}, given {name}: wrap it in a lambda")
        return cls(net, has_conditions or not two)

    @property
    def device(self) -> torch.device:
        """Where the parameters of a module are; the CPU for a function."""
        return next((parameter.device for parameter in self._parameters()), torch.device("cpu"))

    def __call__(self, x: Tensor, t: Tensor, condition: Any) -> Tensor:
        """Raw prediction of x's shape and dtype.

        Raises:
            ArgumentError: The network returns anything but a tensor of x's shape, or of twice its channels.
        """
        given = (self._cast(x), t, self._cast(condition)) if self.takes_condition else (self._cast(x), t)
        output = self.net(*given)
        output = getattr(output, "sample", output)
        output = output[0] if isinstance(output, (tuple, list)) and output else output
        batch, channels, *size = x.shape
        shape, with_variance = (batch, channels, *size), (batch, 2 * channels, *size)
        if not isinstance(output, Tensor) or output.shape not in (shape, with_variance):
            returned = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ArgumentError(
                f"expected the network to return, for states of shape {shape}, that shape, or {with_variance} with a learned "
                f"variance, given {returned}: check `shape`, or wrap the network"
            )
        return output[:, :channels].to(x.dtype)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self.net.parameters()) if isinstance(self.net, torch.nn.Module) else []

    def _cast(self, value: Any) -> Any:
        """Floating tensors in the dtype of a module's parameters; anything else as it is."""
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            return value
        return value.to(next((p.dtype for p in self._parameters() if p.is_floating_point()), value.dtype))


def can_be_called(net: Callable[..., Any], count: int) -> bool:
    """Whether its signature takes so many arguments; True if it has none that Python can read."""
    try:
        takes = inspect.signature(net.forward if isinstance(net, torch.nn.Module) else net)
    except (ValueError, TypeError):  # as built-in functions may
        return True
    try:
        takes.bind(*range(count))
    except TypeError:
        return False
    return True
