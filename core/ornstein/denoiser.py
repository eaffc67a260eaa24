"""A network that knows its process and what its output means."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.parameterization import Parameterization
from ornstein.process.affine import Process, as_time


@runtime_checkable
class DenoiserLike(Protocol):
    """What samplers call: a network, a guided network or an exact formula."""

    process: Process

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate: ...


class Prepared(NamedTuple):
    """What a batch is sampled, or trained, with."""

    denoiser: "Denoiser"
    """Its process is that of the batch."""
    observation: Tensor | None
    """What the process runs towards."""
    condition: dict[str, Tensor]
    """The condition of the calls."""


class Denoiser(nn.Module):
    """Network + process + parameterization: estimates x0 and the noise of x_t.

    The network is called as network(c_in x, t, y, **condition), without y where there is none; it sees t as a vector
    (B,) in the real type of x. Under autocast only the network runs in low precision.
    """

    observe_evaluations: ClassVar[int] = 0
    """Network calls of `observe`."""

    def __init__(self, network: nn.Module, process: Process, parameterization: Parameterization) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.parameterization = parameterization

    def observe(self, y: Tensor | None) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What the process runs towards and the condition of the calls, from the measured `y` (B, *): once per sample.

        Here y itself and nothing; a denoiser that estimates its observation first overrides this.
        """
        return y, {}

    def prepare(self, y: Tensor | None) -> Prepared:
        """The denoiser for the measured `y` (B, *), with what `observe` gives: once per sample.

        The denoiser is that of `seeing`.
        """
        observation, condition = self.observe(y)
        return Prepared(self.seeing(observation, condition), observation, condition)

    def seeing(self, observation: Tensor | None, condition: Mapping[str, Tensor]) -> "Denoiser":
        """The denoiser for what `observe` gives, or for the same piece of all of it (a tile).

        Here this very denoiser; one whose process depends on the observation overrides this.
        """
        return self

    @property
    def networks(self) -> list[nn.Module]:
        """Every network in it."""
        return [self.network]

    def with_networks(self, change: Callable[[nn.Module], nn.Module]) -> "Denoiser":
        """The same denoiser with `change(network)` for every network in it."""
        return Denoiser(change(self.network), self.process, self.parameterization)

    def with_process(self, process: Process) -> "Denoiser":
        """The same networks on another process, such as the weighted one of a batch (`UPSR.weighted`)."""
        denoiser = copy.copy(self)
        denoiser.process = process
        return denoiser

    def forward(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        """Estimate for `x` (B, *) at time `t`, () or (B,), given the observation `y` (B, *).

        Raises:
            UserError: the network fails, and its weights have another type than `x`.
        """
        t = as_time(t)
        try:
            output = self.output(x, t, y, **condition)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError):
                require_type(self.networks, x, error)
            raise
        return self.parameterization.estimate(self.process, output, x, t, y)

    def output(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        """Output of the network, in the dtype of `x`, given the state, the time and what it is shown of y."""
        scaled, network_time, seen = self.parameterization.inputs(self.process, x, t, y)
        times = one_a_sample(network_time, x)
        arguments = (scaled, times) if seen is None else (scaled, times, seen)
        output: Tensor = self.network(*arguments, **condition)
        return output.to(x.dtype)


def one_a_sample(time: Tensor, x: Tensor) -> Tensor:
    """`time`, () or (B,), as a vector (B,) in the real type of `x` (B, *)."""
    if time.ndim == 0 and time.is_cpu:  # a host number: no copy to wait for
        return x.real.new_full((len(x),), time.item())
    return time.to(device=x.device, dtype=x.real.dtype).expand(len(x))


def require_type(networks: Iterable[nn.Module], x: Tensor, cause: RuntimeError) -> None:
    """Raise UserError from `cause` if no weight of `networks` has the real type of the state `x`, outside of
    autocast."""
    types = {weight.dtype.to_real() for network in networks for weight in network.parameters()}
    if types and x.real.dtype not in types and not torch.is_autocast_enabled(x.device.type):
        wanted = min(types, key=str)
        state = wanted.to_complex() if x.is_complex() else wanted
        raise UserError(
            f"the state is of {x.dtype} and the weights of the network of {wanted}; give the state as x.to({state})"
        ) from cause


def require_rows(condition: Mapping[str, Tensor], size: int) -> None:
    """Raise UserError if a condition has neither one row for each of `size` samples nor one for all."""
    for name, value in condition.items():
        if value.ndim and len(value) not in (1, size):
            raise UserError(
                f"the condition {name} has {len(value)} rows and the batch {size} samples; give a row for each, or one "
                "for all"
            )
