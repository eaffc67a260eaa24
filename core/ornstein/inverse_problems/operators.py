"""Linear operators H of r = H x0 + sigma n, with adjoint, pseudo-inverse and, where there is one, the SVD.

H = U S V^H; signals are (B, *), spectral vectors (B, n) with n the size of one signal, measurements (B, *).
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ornstein.errors import UserError


class LinearOperator(ABC):
    """What posterior samplers need of H."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """H x."""

    @abstractmethod
    def adjoint(self, r: Tensor) -> Tensor:
        """H^H r."""

    @abstractmethod
    def pseudo_inverse(self, r: Tensor) -> Tensor:
        """H^+ r, the least-norm signal that explains `r` best."""

    @abstractmethod
    def regularized_inverse(self, r: Tensor, noise_to_signal: float) -> Tensor:
        """H^H (H H^H + noise_to_signal I)^-1 r; 0 is the pseudo-inverse."""


class SpectralOperator(LinearOperator):
    """An operator with a known SVD; everything else follows from it."""

    tolerance = 1e-6
    """Singular values below this times the largest count as zero."""

    @abstractmethod
    def singular_values(self, like: Tensor) -> Tensor:
        """S, (n,) or (B, n), for signals like `like`; zero where nothing is measured."""

    @abstractmethod
    def to_spectral(self, x: Tensor) -> Tensor:
        """V^H x, (B, n)."""

    @abstractmethod
    def from_spectral(self, v: Tensor, like: Tensor) -> Tensor:
        """V v, shaped and typed like the signal `like`."""

    @abstractmethod
    def measured_to_spectral(self, r: Tensor) -> Tensor:
        """U^H r, (B, n), zero where nothing is measured."""

    @abstractmethod
    def signal_like(self, r: Tensor) -> Tensor:
        """An empty signal that fits the measurement `r`."""

    def kept(self, like: Tensor) -> Tensor:
        """S with the values that count as zero set to zero."""
        s = self.singular_values(like)
        return torch.where(s > self.tolerance * s.max(), s, torch.zeros_like(s))

    def adjoint(self, r: Tensor) -> Tensor:
        like = self.signal_like(r)
        return self.from_spectral(self.kept(like) * self.measured_to_spectral(r), like)

    def pseudo_inverse(self, r: Tensor) -> Tensor:
        return self.regularized_inverse(r, 0.0)

    def regularized_inverse(self, r: Tensor, noise_to_signal: float) -> Tensor:
        like = self.signal_like(r)
        s = self.kept(like)
        gain = torch.where(s > 0, s / (s**2 + noise_to_signal).clamp(min=torch.finfo(s.dtype).tiny), s)
        return self.from_spectral(gain * self.measured_to_spectral(r), like)


class Matrix(SpectralOperator):
    """H as a matrix (m, n) on signals of `shape`, n values each; measurements are (B, m).

    `as_matrix` makes one of any operator on small signals.
    """

    def __init__(self, matrix: Tensor, shape: tuple[int, ...] | None = None) -> None:
        if matrix.ndim != 2 or not bool(matrix.isfinite().all()):
            raise UserError(f"the operator must be a finite matrix (m, n), got the shape {tuple(matrix.shape)}")
        self.matrix = matrix
        self.shape = (matrix.shape[1],) if shape is None else tuple(shape)
        if math.prod(self.shape) != matrix.shape[1]:
            raise UserError(f"signals of {self.shape} do not fit a matrix with {matrix.shape[1]} columns")
        self.U, values, self.Vh = torch.linalg.svd(matrix, full_matrices=True)
        self.values = torch.cat([values, values.new_zeros(matrix.shape[1] - len(values))])

    def __call__(self, x: Tensor) -> Tensor:
        if x.flatten(1).shape[1] != self.matrix.shape[1]:
            raise UserError(
                f"the matrix takes signals of {self.matrix.shape[1]} values, got the shape {tuple(x.shape)}"
            )
        return x.flatten(1) @ self.matrix.T.to(x.device, x.dtype)

    def singular_values(self, like: Tensor) -> Tensor:
        return self.values.to(like.device, like.real.dtype)

    def to_spectral(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.Vh.T.to(x.device, x.dtype)

    def from_spectral(self, v: Tensor, like: Tensor) -> Tensor:
        return (v @ self.Vh.conj().to(v.device, v.dtype)).reshape(like.shape)

    def measured_to_spectral(self, r: Tensor) -> Tensor:
        rank = min(self.matrix.shape)
        if r.ndim != 2 or r.shape[1] != self.matrix.shape[0]:
            raise UserError(f"measurements of this matrix are (B, {self.matrix.shape[0]}), got {tuple(r.shape)}")
        v = r @ self.U[:, :rank].conj().to(r.device, r.dtype)
        return torch.cat([v, v.new_zeros(len(v), len(self.values) - rank)], dim=1)

    def signal_like(self, r: Tensor) -> Tensor:
        return r.new_zeros(len(r), *self.shape)


class Mask(SpectralOperator):
    """Inpainting: keeps the values where `mask` is 1; `mask` broadcasts against the signals, one a sample if wanted.

    Measurements have the shape of the signal, zero where nothing is kept.
    """

    def __init__(self, mask: Tensor) -> None:
        if not bool(((mask == 0) | (mask == 1)).all()) or not bool(mask.any()):
            raise UserError("a mask holds 0 and 1, and at least one 1")
        self.mask = mask

    def singular_values(self, like: Tensor) -> Tensor:
        self._require(like)
        return self.mask.to(like.device, like.real.dtype).expand(like.shape).flatten(1)

    def to_spectral(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def from_spectral(self, v: Tensor, like: Tensor) -> Tensor:
        return v.reshape(like.shape)

    def measured_to_spectral(self, r: Tensor) -> Tensor:
        return r.flatten(1) * self.singular_values(r)

    def __call__(self, x: Tensor) -> Tensor:
        self._require(x)
        return x * self.mask.to(x.device, x.real.dtype)

    def signal_like(self, r: Tensor) -> Tensor:
        return torch.zeros_like(r)

    def _require(self, x: Tensor) -> None:
        sides = zip(reversed(self.mask.shape), reversed(x.shape), strict=False)
        if self.mask.ndim > x.ndim or any(one not in (1, other) for one, other in sides):
            raise UserError(f"a mask of shape {tuple(self.mask.shape)} does not fit signals {tuple(x.shape)}")


class Downsample(SpectralOperator):
    """Means of blocks of `factor` x `factor` pixels of pictures (B, C, H, W)."""

    def __init__(self, factor: int) -> None:
        if factor < 2:
            raise UserError(f"the factor is {factor}; it must be at least 2")
        self.factor = factor
        size = factor**2
        first = torch.full((size, 1), 1 / factor, dtype=torch.float64)
        rest = torch.eye(size, dtype=torch.float64)[:, 1:]
        basis = torch.linalg.qr(torch.cat([first, rest], dim=1)).Q
        self.basis = basis * basis[0, 0].sign()  # the first column is the mean of a block times the factor

    def singular_values(self, like: Tensor) -> Tensor:
        s = torch.zeros(like[0].numel() // self.factor**2, self.factor**2, dtype=like.real.dtype, device=like.device)
        s[:, 0] = 1 / self.factor
        return s.flatten()

    def to_spectral(self, x: Tensor) -> Tensor:
        f = self.factor
        if x.ndim != 4 or x.shape[2] % f or x.shape[3] % f:
            raise UserError(f"pictures (B, C, H, W) need sides divisible by {f}, got {tuple(x.shape)}; crop them")
        blocks = x.unfold(2, f, f).unfold(3, f, f).flatten(4)
        return (blocks @ self.basis.to(x.device, x.dtype)).flatten(1)

    def from_spectral(self, v: Tensor, like: Tensor) -> Tensor:
        f = self.factor
        batch, channels, height, width = like.shape
        blocks = v.reshape(batch, channels, height // f, width // f, f * f) @ self.basis.T.to(v.device, v.dtype)
        return blocks.unflatten(-1, (f, f)).permute(0, 1, 2, 4, 3, 5).reshape(like.shape)

    def measured_to_spectral(self, r: Tensor) -> Tensor:
        v = r.new_zeros(*r.shape, self.factor**2)
        v[..., 0] = r
        return v.flatten(1)

    def __call__(self, x: Tensor) -> Tensor:
        f = self.factor
        v = self.to_spectral(x).reshape(len(x), x.shape[1], x.shape[2] // f, x.shape[3] // f, f * f)
        return v[..., 0] / f

    def signal_like(self, r: Tensor) -> Tensor:
        return r.new_zeros(*r.shape[:2], r.shape[2] * self.factor, r.shape[3] * self.factor)


class Blur(SpectralOperator):
    """Circular convolution of pictures (B, C, H, W) with `kernel` (h, w), its centre at (h // 2, w // 2)."""

    def __init__(self, kernel: Tensor) -> None:
        if kernel.ndim != 2 or not bool(kernel.isfinite().all()):
            raise UserError(f"the kernel must be finite and (h, w), got the shape {tuple(kernel.shape)}")
        self.kernel = kernel

    def __call__(self, x: Tensor) -> Tensor:
        return _real_if(torch.fft.ifft2(self._response(x) * torch.fft.fft2(x)), x)

    def singular_values(self, like: Tensor) -> Tensor:
        return self._response(like).abs().expand(like.shape[1:]).flatten()

    def to_spectral(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho").flatten(1)

    def from_spectral(self, v: Tensor, like: Tensor) -> Tensor:
        return _real_if(torch.fft.ifft2(v.reshape(like.shape), norm="ortho"), like)

    def measured_to_spectral(self, r: Tensor) -> Tensor:
        response = self._response(r)
        phase = response.conj() / response.abs().clamp(min=torch.finfo(r.real.dtype).tiny)
        return (phase * torch.fft.fft2(r, norm="ortho")).flatten(1)

    def signal_like(self, r: Tensor) -> Tensor:
        return torch.zeros_like(r)

    def _response(self, x: Tensor) -> Tensor:
        h, w = self.kernel.shape
        if x.ndim != 4 or x.shape[2] < h or x.shape[3] < w:
            raise UserError(f"a kernel of {h} x {w} needs pictures (B, C, H, W) of that size, got {tuple(x.shape)}")
        padded = torch.zeros(x.shape[2:], dtype=x.real.dtype, device=x.device)
        padded[:h, :w] = self.kernel.to(x.device, x.real.dtype)
        return torch.fft.fft2(padded.roll((-(h // 2), -(w // 2)), (0, 1)))


class MaskedFourier(Mask):
    """The orthonormal Fourier coefficients (k-space) of complex pictures (B, C, H, W) where `mask` is 1."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(self._complex(x), norm="ortho") * self.mask.to(x.device, x.real.dtype)

    def to_spectral(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(self._complex(x), norm="ortho").flatten(1)

    def from_spectral(self, v: Tensor, like: Tensor) -> Tensor:
        return torch.fft.ifft2(v.reshape(like.shape), norm="ortho")

    @staticmethod
    def _complex(x: Tensor) -> Tensor:
        if not x.is_complex():
            raise UserError("masked Fourier measurements are of complex pictures; convert them with x.to(torch.cfloat)")
        return x


def as_matrix(operator: LinearOperator, shape: tuple[int, ...], limit: int = 4096) -> Matrix:
    """The operator on signals of `shape` (one signal, real) as a matrix, which has an SVD; measurements become flat.

    Raises:
        UserError: the signal has more than `limit` values.
    """
    size = math.prod(shape)
    if size > limit:
        raise UserError(f"a matrix for signals of {size} values is too large; raise the limit of {limit} or crop")
    columns = operator(torch.eye(size, dtype=torch.float64).reshape(size, *shape).to(torch.get_default_dtype()))
    return Matrix(columns.flatten(1).T.contiguous(), shape)


def _real_if(x: Tensor, like: Tensor) -> Tensor:
    return x if like.is_complex() else x.real
