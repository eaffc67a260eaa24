"""Speed of the infrared networks on one GPU: one call of the published Swin-UNet, and whole frames, 256 x 256 to 1024 x
1024, in 1 and in 15 steps. It needs a GPU; nothing of it can be measured without one.

    python benchmarks/infrared_speed.py
    python benchmarks/infrared_speed.py --cases "Swin-UNet, latents 64 x 64" --variants "compiled graph bfloat16"

What is measured, the published time, and the goal:

    Swin-UNet, one call, latents 64 x 64    63.0 ms    8 ms

with the PSNR of the network's output, with random weights, against float32 without TF32, as in restoration_speed.py.
Whole frames are those of the published size on latents (the autoencoder, which encodes the enlargement and decodes the
result in float32, is in the time), and of the small network of configs/infrared/roadscene_pixel.yaml; from a frame on
the CPU to the result on the CPU, not in tiles. Medians after warm-up.

Writes benchmarks/results/infrared_speed.json after every row (what is not run keeps its last numbers) and then the
table of docs/speed.md. A variant that fails has the reason in its row, and the others go on.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speed_rows import VARIANTS, Case, Measure, cells, forward, options, run
from timing import first_call, random_network, rows

from ornstein.acceleration import accelerate
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.networks.swin_unet import SwinUNet
from ornstein.networks.vq import VQAutoencoder
from ornstein.parameterization import Residual
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.process.residual_shift import DEFAULT15
from ornstein.samplers.ancestral import Ancestral
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import RangeScaling, ScaledInput
from ornstein_infrared.representation import ThermalSpace

RESULT = Path(__file__).parent / "results" / "infrared_speed.json"
CALL = "Swin-UNet, latents 64 x 64"
SIDE = 256
"""Of the measured frame."""
SMALL = partial(
    SwinUNet,
    in_channels=16,
    condition_channels=16,
    out_channels=1,
    model_channels=32,
    channel_mult=(1, 2, 2, 3),
    attention_resolutions=(32, 16, 8, 4),
    image_size=32,
    swin_embed_dim=64,
    num_feat=64,
)
"""The network of configs/infrared/roadscene_pixel.yaml."""

CASES = {CALL: Case(SwinUNet, (3, 64, 64), 3, 63.0, 8)}


def published() -> tuple[Denoiser, ThermalSpace]:
    """The published size, on latents."""
    denoiser = LatentDenoiser(random_network(SwinUNet), DEFAULT15, random_network(VQAutoencoder))
    return denoiser, ThermalSpace(channels=3, factor=4, bound=1.0)


def small() -> tuple[Denoiser, ThermalSpace]:
    """The small one, on pixels."""
    parameterization = ScaledInput(Residual(), RangeScaling())
    denoiser = UncertaintyGuided(random_network(SMALL), DEFAULT15, parameterization, None, 4, 4)
    return denoiser, ThermalSpace(patch=4, multiple=32)


WHOLE: dict[str, tuple[Callable[[], tuple[Denoiser, ThermalSpace]], int]] = {
    f"{name}, {SIDE} to {4 * SIDE}, {steps} step{'s' * (steps > 1)}": (make, steps)
    for name, make in (("published size on latents", published), ("small network on pixels", small))
    for steps in (1, 15)
}


def whole(make: Callable[[], tuple[Denoiser, ThermalSpace]], steps: int, device: str, variant: str) -> dict[str, Any]:
    """Seconds of a frame from the CPU to the CPU."""
    denoiser, space = make()
    fast = accelerate(denoiser.to(device).eval(), VARIANTS[variant])
    model = Model(fast, Ancestral(steps=steps, eta=0.0 if steps == 1 else 1.0), space)
    frame = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return restore_picture(model, frame, seed=0, device=device)

    _, first = first_call(run)
    times = []
    for _ in range(3 + 7):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return {"ms": 1000 * sorted(times[3:])[3], "first_call_s": first}


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/speed.md."""
    lines: list[str] = []
    if CALL in results:
        own, case = results[CALL], CASES[CALL]
        shown = [cells(variant, row, ["psnr"]) for variant, row in own["rows"].items()]
        lines += [*rows([CALL, "ms", "PSNR (dB)", "first call (s)"], shown), ""]
        lines += [f"Published: {case.published_ms} ms; goal: {case.goal_ms} ms. On {own['machine']}.", ""]
    found = {name: own for name, own in results.items() if name in WHOLE}
    for name, own in found.items():
        shown = [cells(variant, row) for variant, row in own["rows"].items()]
        lines += [*rows([name, "ms", "first call (s)"], shown), "", f"On {own['machine']}.", ""]
    return "\n".join(lines)


def main() -> None:
    some = ["eager float32", "graph float32", "graph bfloat16", "compiled graph bfloat16"]
    also = ("whole", list(VARIANTS), some, "variants of whole frames")
    chosen = options(__doc__, [*CASES, *WHOLE], RESULT, also)

    def plan(name: str) -> tuple[Measure, list[str]]:
        if name in CASES:
            return partial(forward, CASES[name], profiled=chosen.profile), chosen.variants
        return partial(whole, *WHOLE[name], "cuda"), chosen.whole

    run(chosen, RESULT, "infrared speed", markdown, plan)


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print("ornstein:", problem, file=sys.stderr)
        sys.exit(2)
