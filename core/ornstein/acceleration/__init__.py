"""Making a denoiser and its sampler fast: low precision, memory layout, compilation, CUDA graphs, shared batches."""

from ornstein.acceleration.branches import evaluate_together
from ornstein.acceleration.denoiser import Acceleration, accelerate
from ornstein.acceleration.graphs import GraphedCall, GraphedSampler

__all__ = ["Acceleration", "GraphedCall", "GraphedSampler", "accelerate", "evaluate_together"]
