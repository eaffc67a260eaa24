"""The one family of processes: x_t = a(t) x0 + b(t) y + s(t) z with z ~ N(0, I).

Time t = 0 is clean, t = T is corrupted; y is the observation (noisy speech, low-resolution picture), absent where b =
0. Besides the marginal, a process has a memory phi: two times s < t of one path are correlated through

    c = (phi_t / phi_s) (s_s / s_t),

which fixes the forward equation dx = [a' x0 + b' y + (phi'/phi)(x - a x0 - b y)] dt + g dw with
g^2 = d(s^2)/dt - 2 (phi'/phi) s^2, and the posterior q(x_s | x_t, x0, y).

Shapes: signals are (B, *); times are float64 tensors of shape () for all samples or (B,) one a sample. Coefficients
have the shape of the time, or are maps with as many dimensions as the signal (a noise level of its own for every
pixel); such a process names one scalar `reference`, on which time grids and kappa rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """The four functions of time of a process, or their derivatives: float64, of the shape of t (or broadcasting
    against the signal)."""

    a: Tensor
    """Weight of the clean signal x0."""
    b: Tensor
    """Weight of the observation y."""
    s: Tensor
    """Standard deviation of the noise."""
    phi: Tensor
    """Memory: how a deviation from the mean decays forward in time."""


Weight = float | Tensor
"""A float, or a float64 tensor of the shape of a time or a map."""


class Weights(NamedTuple):
    """The four functions at one time, as floats where that can be."""

    a: Weight
    b: Weight
    s: Weight
    phi: Weight


class StepWeights(NamedTuple):
    """x_s = x w_x + x0 w_x0 + y w_y + noise w_noise."""

    x: Tensor
    x0: Tensor
    y: Tensor
    noise: Tensor


def as_time(t: Tensor | float) -> Tensor:
    """`t` as a float64 tensor; a number becomes a host scalar, so that no step of a sampler waits for the device."""
    return t.double() if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


def expand(c: Tensor, x: Tensor) -> Tensor:
    """Make the coefficient `c` broadcast against the signal `x`: () stays a host scalar, (B,) becomes (B, 1, ...), a
    map stays a map."""
    if c.ndim == 0:
        return c if c.device.type == "cpu" else c.to(x.real.dtype)
    if c.ndim == 1 and x.ndim > 1:
        c = c.reshape(-1, *(1,) * (x.ndim - 1))
    return c.to(device=x.device, dtype=x.real.dtype)


def combine(x: Tensor, *terms: tuple[Weight, Tensor | None]) -> Tensor:
    """Sum of coefficient * signal over `terms`, shaped and typed like `x`; a missing signal counts as zero."""
    total: Tensor | None = None
    for coefficient, signal in terms:
        if signal is None:
            continue
        if isinstance(coefficient, Tensor):
            term = expand(coefficient, x) * signal
            total = term if total is None else total + term
        elif total is None:
            total = signal if coefficient == 1 else signal * coefficient
        else:
            total = torch.add(total, signal, alpha=coefficient)
    if total is None:
        return torch.zeros_like(x)
    return total if total.dtype == x.dtype and total.shape == x.shape else total + torch.zeros_like(x)


def weights_between(now: Coefficients, earlier: Coefficients, eta: float) -> StepWeights:
    """`Process.step_weights` from the coefficients at both times."""
    a_t, b_t, s_t, phi_t = now
    a_s, b_s, s_s, phi_s = earlier
    some = s_t != 0
    s_t = torch.where(some, s_t, torch.ones_like(s_t))
    c = torch.where(some, phi_t / phi_s * s_s / s_t, torch.zeros_like(s_t)).clamp(max=1.0)
    spread = 1 - c**2
    tau = eta * s_s * spread.sqrt()
    w_x = torch.where(some, s_s * (1 - eta**2 * spread).clamp(min=0).sqrt() / s_t, torch.zeros_like(s_t))
    return StepWeights(x=w_x, x0=a_s - w_x * a_t, y=b_s - w_x * b_t, noise=tau)


SECTIONS = 32
"""Parts that `Process.time_at_kappa` cuts its interval into at once."""
REMEMBERED = 4096
"""Answers that a process keeps."""
Found = TypeVar("Found")


def _as_weights(coefficients: Coefficients) -> Weights:
    """Those of one number on the host as floats; others as they are."""
    return Weights(*(c.item() if c.ndim == 0 and c.device.type == "cpu" else c for c in coefficients))


class Process(ABC):
    """Coefficients of x_t = a x0 + b y + s z and what follows from them; it knows no network.

    A family defines `coefficients` and `derivatives`; everything else is shared.
    """

    T: ClassVar[float] = 1.0
    """Last time of the process."""
    first_level: ClassVar[float] = 0.0
    """Earliest time that networks are trained at: 0, or the first node above it of a table."""
    observed: ClassVar[bool] = False
    """Whether the process needs an observation y (b is not zero everywhere)."""

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """a, b, s, phi at time `t` (float64)."""

    @abstractmethod
    def derivatives(self, t: Tensor) -> Coefficients:
        """a', b', s', phi' at time `t`; s' is infinite where s leaves zero like a square root."""

    def reference(self, t: Tensor) -> Coefficients:
        """The coefficients that time grids go by, always of the shape of `t`; the same ones unless some are maps."""
        return self.coefficients(t)

    def scalar(self) -> tuple["Process", Tensor | None]:
        """A process with scalar coefficients and the map W with which it is this one: s = W times its s.

        W drops out of every weight of a solver, so that a solver runs on the scalar process with W z in the place of z.
        Here this very process and None, also where no single W does (a process of frequencies).
        """
        return self, None

    def coefficients_at(self, t: Tensor) -> Weights:
        """`coefficients` at `t`, as floats where `t` is one number on the host and none is a map.

        Floats cost a fraction of what small tensors do, and are remembered for the next call at the same time.
        """
        process, noise_map = self.scalar()
        if noise_map is None:
            return self._at("coefficients", t, lambda t: _as_weights(self.coefficients(t)))
        if t.ndim:
            return Weights(*self.coefficients(t))
        found = process.coefficients_at(t)
        return found._replace(s=found.s * noise_map)

    def derivatives_at(self, t: Tensor) -> Weights:
        """`derivatives`, as `coefficients_at`."""
        return self._at("derivatives", t, lambda t: _as_weights(self.derivatives(t)))

    def remember(self, key: Hashable, compute: Callable[[], Found]) -> Found:
        """`compute()`, kept for the next call with `key`: for what every run on a grid asks of a schedule again."""
        remembered: dict[Hashable, Found] = self.__dict__.setdefault("_remembered", {})
        found = remembered.get(key)
        if found is None:
            if len(remembered) >= REMEMBERED:
                remembered.clear()
            remembered[key] = found = compute()
        return found

    def _at(self, name: str, t: Tensor, compute: Callable[[Tensor], Found]) -> Found:
        """`compute(t)`, remembered where `t` is one number on the host."""
        if t.ndim or t.device.type != "cpu" or t.requires_grad:
            return compute(t)
        return self.remember((name, t.item()), lambda: compute(t))

    def nearest(self, t: Tensor) -> Tensor:
        """`t` itself, or the nearest node of a tabulated schedule: what grids in time visit."""
        return t

    # -- forward ---------------------------------------------------------------------------------------------------

    def mean(self, x0: Tensor, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """a x0 + b y, shape of `x0`."""
        a, b, _, _ = self.coefficients(as_time(t))
        return combine(x0, (a, x0), (b, self.require(y)))

    def sample(self, x0: Tensor, t: Tensor | float, z: Tensor, y: Tensor | None = None) -> Tensor:
        """x_t = a x0 + b y + s z for unit noise `z` (complex: E|z|^2 = 1), shape of `x0`."""
        a, b, s, _ = self.coefficients(as_time(t))
        return combine(x0, (a, x0), (b, self.require(y)), (s, z))

    def start(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Where sampling begins, x_T without its unknown part a x0: b y + s z."""
        _, b, s, _ = self.coefficients(as_time(self.T))
        return combine(z, (b, self.require(y)), (s, z))

    def variance_rate(self, t: Tensor) -> Tensor:
        """d(s^2)/dt; a family whose s' is infinite somewhere gives it in a form that is finite there."""
        return 2 * self.coefficients(t).s * self.derivatives(t).s

    def diffusion_squared(self, t: Tensor | float) -> Tensor:
        """g^2 = d(s^2)/dt - 2 (phi'/phi) s^2 of the forward equation."""
        t = as_time(t)
        _, _, s, phi = self.coefficients(t)
        return self.variance_rate(t) - 2 * self.derivatives(t).phi / phi * s**2

    def drift(self, x: Tensor, t: Tensor | float, x0: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Forward drift (phi'/phi) x + (a' - a phi'/phi) x0 + (b' - b phi'/phi) y; x0 matters only where phi is not
        proportional to a."""
        t = as_time(t)
        a, b, _, phi = self.coefficients(t)
        da, db, _, dphi = self.derivatives(t)
        rate = dphi / phi
        return combine(x, (rate, x), (da - a * rate, x0), (db - b * rate, self.require(y)))

    # -- backward --------------------------------------------------------------------------------------------------

    def step_weights(self, t: Tensor | float, s: Tensor | float, eta: float = 1.0) -> StepWeights:
        """Weights of one step from time `t` to the earlier time `s` given the clean signal.

        With c = (phi_t/phi_s)(s_s/s_t), tau = eta s_s sqrt(1 - c^2): x_s = a_s x0 + b_s y + sqrt(s_s^2 - tau^2) z_t +
        tau eps. eta = 1 samples the exact posterior q(x_s | x_t, x0, y), eta = 0 is the deterministic step, which is
        also the first-order step of dw/dkappa = x0 (w = (x - b y)/s, kappa = a/s). Where s_t = 0 (a bridge at T), z_t
        counts as 0.
        """
        return weights_between(self.coefficients(as_time(t)), self.coefficients(as_time(s)), eta)

    def step(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        x0: Tensor,
        y: Tensor | None = None,
        noise: Tensor | None = None,
        eta: float = 0.0,
    ) -> Tensor:
        """Move `x` from time `t` to the earlier `s` with the clean signal `x0`: `step_weights` applied."""
        w = self.step_weights(t, s, eta)
        return combine(x, (w.x, x), (w.x0, x0), (w.y, self.require(y)), (w.noise, noise))

    # -- coordinates -----------------------------------------------------------------------------------------------

    def kappa(self, t: Tensor | float) -> Tensor:
        """kappa = a/s, signed and decreasing in t; infinite where s = 0 and a > 0, zero where both vanish; of
        `reference`."""
        a, _, s, _ = self.reference(as_time(t))
        return torch.where(a == 0, torch.zeros_like(a), a / s)

    def lambda_at(self, t: Tensor | float) -> Tensor:
        """lambda = log(a/s), half the log signal-to-noise ratio; infinite where s or a is 0, NaN where a < 0."""
        t = as_time(t)
        return self._at("lambda", t, self._lambda)

    def _lambda(self, t: Tensor) -> Tensor:
        a, _, s, _ = self.reference(t)
        return torch.where(a == 0, -torch.inf, a.log() - s.log())

    def time_at_lambda(self, value: Tensor | float) -> Tensor:
        """The time at which log(a/s) equals `value`, as `time_at_kappa`."""
        return self.time_at_kappa(as_time(value).exp())

    def time_at_kappa(self, kappa: Tensor | float) -> Tensor:
        """The time at which a/s equals `kappa`, by sections to the last bit of float64 (kappa is monotone); ends are
        clamped."""
        kappa = as_time(kappa)
        process = self.scalar()[0]
        if kappa.ndim > 1 or kappa.device.type != "cpu" or kappa.requires_grad:
            return process._time_at_kappa(kappa)
        key = ("time at kappa", kappa.ndim, *kappa.reshape(-1).tolist())
        return process.remember(key, lambda: process._time_at_kappa(kappa)).clone()

    def _time_at_kappa(self, kappa: Tensor) -> Tensor:
        low, high = torch.zeros_like(kappa), torch.full_like(kappa, self.T)
        parts = torch.arange(1, SECTIONS, dtype=torch.float64, device=kappa.device) / SECTIONS
        for _ in range(1100 if self.T > 1 else 80):
            middle = (low + high) / 2
            if bool(((middle == low) | (middle == high)).all()):
                break
            inside = low[..., None] + (high - low)[..., None] * parts
            # up to the first inner point where kappa is no longer above: rounding may make it rise again after that
            before = (self.kappa(inside) > kappa[..., None]).cumprod(-1).sum(-1, keepdim=True)
            edges = torch.cat([low[..., None], inside, high[..., None]], -1)
            low, high = edges.gather(-1, before)[..., 0], edges.gather(-1, before + 1)[..., 0]
        return torch.where(
            self.kappa(torch.full_like(kappa, self.T)) >= kappa, torch.full_like(kappa, self.T), (low + high) / 2
        )

    def network_time(self, t: Tensor) -> Tensor:
        """What a network of this process is told instead of `t`; the published networks define it."""
        return t

    def require(self, y: Tensor | None) -> Tensor | None:
        """`y` where the process needs it, None where it does not; raises ValueError if it is missing."""
        if not self.observed:
            return None
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the observation y")
        return y
