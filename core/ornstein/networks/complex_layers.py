"""Layers of complex numbers with separate weights for the real and the imaginary part, under the published names.

A complex signal is one real tensor with an axis of two parts, real and imaginary: feature maps (B, 2, C, F, T), vectors
(B, 2, E). So one real convolution does the work of four, and autocast applies.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]
"""Along bins and along frames."""


class ComplexConv2d(nn.Module):
    """(B, 2, `inputs`, F, T) -> (B, 2, `outputs`, F', T'): re x_re - im x_im and re x_im + im x_re, biases included."""

    def __init__(self, inputs: int, outputs: int, kernel: Pair, stride: Pair, dilation: Pair, *, bias: bool = False):
        super().__init__()
        self.shape = (stride, (kernel[0] // 2, kernel[1] // 2), dilation)
        self.re_module = nn.Conv2d(inputs, outputs, kernel, *self.shape, bias=bias)
        self.im_module = nn.Conv2d(inputs, outputs, kernel, *self.shape, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        re, im = self.re_module.weight, self.im_module.weight
        weight = torch.cat([torch.cat([re, -im], 1), torch.cat([im, re], 1)], 0)
        bias = _complex_bias(self.re_module.bias, self.im_module.bias)
        out = F.conv2d(x.flatten(1, 2), weight, bias, *self.shape)
        return out.unflatten(1, (2, -1))


class ComplexConvTranspose2d(nn.Module):
    """The transposed convolution, to a given number of bins and frames."""

    def __init__(self, inputs: int, outputs: int, kernel: Pair, stride: Pair, dilation: Pair, *, bias: bool = False):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.re_module = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=bias)
        self.im_module = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=bias)

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        re, im = self.re_module.weight, self.im_module.weight
        weight = torch.cat([torch.cat([re, im], 1), torch.cat([-im, re], 1)], 0)
        bias = _complex_bias(self.re_module.bias, self.im_module.bias)
        missing = [size[axis] - self._smallest(axis, x.shape[3 + axis]) for axis in (0, 1)]
        out = F.conv_transpose2d(
            x.flatten(1, 2), weight, bias, self.stride, self.padding, missing, dilation=self.dilation
        )
        return out.unflatten(1, (2, -1))

    def _smallest(self, axis: int, size: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        return (size - 1) * self.stride[axis] - 2 * self.padding[axis] + reach + 1


class ComplexLinear(nn.Module):
    """(B, 2, `inputs`) -> (B, 2, `outputs`)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.re = nn.Linear(inputs, outputs)
        self.im = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        re, im = self.re(x), self.im(x)
        return torch.stack([re[:, 0] - im[:, 1], re[:, 1] + im[:, 0]], 1)


class ComplexFeatureMap(nn.Module):
    """A linear map of a vector, added to every bin and frame: (B, 2, `inputs`) -> (B, 2, `channels`, 1, 1)."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.dense = ComplexLinear(inputs, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)[..., None, None]


class SplitBatchNorm2d(nn.Module):
    """Batch norm of each part by itself."""

    def __init__(self, channels: int):
        super().__init__()
        self.re_module = nn.BatchNorm2d(channels)
        self.im_module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.re_module(x[:, 0]), self.im_module(x[:, 1])], 1)


def _complex_bias(re: Tensor | None, im: Tensor | None) -> Tensor | None:
    return None if re is None or im is None else torch.cat([re - im, re + im])
