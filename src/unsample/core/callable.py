"""Any function or module that predicts, as the network of a model: `unsample.Model.from_callable` says what is taken."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError

__all__ = ["AnyNetwork"]


@dataclass(frozen=True)
class AnyNetwork:
    """A network asked in its own dtype, with or without the condition; its answer has x's shape and dtype.

    Attributes:
        net: (x, t), or (x, t, condition), to a tensor, a tuple that begins with one, or an object that has one in `.sample`.
        is_told: Whether it is given the condition.
    """

    net: Callable[..., Any]
    is_told: bool

    @classmethod
    def of(cls, net: Callable[..., Any], *, has_conditions: bool) -> AnyNetwork:
        """With conditions, `net` must take three arguments; without, the third is left out, or None where it is asked for.

        Raises:
            ArgumentError: A network that cannot be called so.
        """
        if isinstance(net, torch.nn.Module):
            net.eval()
        two, three = _can_be_called(net, 2), _can_be_called(net, 3)
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
            ArgumentError: The network answers anything else than states of x's shape, or of twice the channels.
        """
        given = (self._cast(x), t, self._cast(condition)) if self.is_told else (self._cast(x), t)
        output = self.net(*given)
        output = getattr(output, "sample", output)
        answer = output[0] if isinstance(output, (tuple, list)) and output else output
        batch, channels, *size = x.shape
        shape, with_variance = (batch, channels, *size), (batch, 2 * channels, *size)
        if not isinstance(answer, Tensor) or answer.shape not in (shape, with_variance):
            found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ArgumentError(
                f"expected the network to answer states of shape {shape} with that shape, or {with_variance} with a learned "
                f"variance, given {found}: check `shape`, or wrap the network"
            )
        return answer[:, :channels].to(x.dtype)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self.net.parameters()) if isinstance(self.net, torch.nn.Module) else []

    def _cast(self, value: Any) -> Any:
        """Floating tensors in the dtype of a module; what else there is, or a function is given, as it is."""
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            return value
        return value.to(next((p.dtype for p in self._parameters() if p.is_floating_point()), value.dtype))


def _can_be_called(net: Callable[..., Any], count: int) -> bool:
    """Whether so many arguments suit it, as far as one can see."""
    try:
        takes = inspect.signature(net.forward if isinstance(net, torch.nn.Module) else net)
    except (ValueError, TypeError):  # built-in functions may have no signature
        return True
    try:
        takes.bind(*range(count))
    except TypeError:
        return False
    return True
