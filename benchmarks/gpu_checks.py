"""What the test suite cannot check without a GPU: in sampling, graphs equal eager calls bit for bit, and no step waits
for the GPU, neither with a network nor with any sampler on any process of `sampling_overhead.py`; in training, graphs
move the weights as plain steps do, but for rounding.

    python benchmarks/gpu_checks.py

Prints one line per check; exit code 1 if one fails.
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from sampling_overhead import CASES, steps_of, steps_only
from sampling_overhead import SAMPLERS as EVERY_SAMPLER

from ornstein.acceleration import Acceleration, GraphedSampler, accelerate
from ornstein.acceleration.training import GraphedTraining
from ornstein.denoiser import Denoiser
from ornstein.networks.dcunet import DCUNet
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.noise import SampleNoise
from ornstein.parameterization import X0, OneShot, Score
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.process.prediction import Prediction
from ornstein.regeneration import StochasticRegeneration
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode_solvers import Heun
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import PowerGrid, UniformGrid

SMALL = {"nf": 16, "ch_mult": (1, 2, 2), "num_res_blocks": 1, "attn_resolutions": ()}
SAMPLERS: list[tuple[str, Sampler]] = [
    ("score", PredictorCorrector(steps=4)),
    ("score", DPMSolverPP(steps=4, grid=UniformGrid(end=0.03, to_zero=True))),
    ("score", Heun(steps=4, grid=UniformGrid(end=0.03, to_zero=True))),
    ("bridge", Ancestral(steps=4, eta=1.0, grid=PowerGrid(end=1e-4))),
    ("bridge", Ancestral(steps=4, eta=0.0, grid=PowerGrid(end=1e-4))),
    ("DCUNet", PredictorCorrector(steps=4)),
    ("regeneration", PredictorCorrector(steps=4, corrector=None)),
]
TRAINING = {"float32": 1e-4, "bfloat16": 0.01}
"""How far apart training in graphs and plain training may be, of the way that the weights go: libraries choose other
kernels while a graph is recorded, which add in another order."""


def main() -> int:
    if not torch.cuda.is_available():
        print("ornstein: this checks a GPU and there is none; run it on a machine with CUDA", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    torch.backends.cudnn.deterministic = True
    predictor = NCSNpp(**SMALL, input_channels=2, time_conditioned=False)  # type: ignore[arg-type]
    regeneration = StochasticRegeneration(
        NCSNpp(**SMALL, input_channels=6, time_division="pyramid"),  # type: ignore[arg-type]
        OUVE(),
        Score(scale=-1.0),
        Denoiser(predictor, Prediction(), OneShot()),
    )
    models = {
        "DCUNet": Denoiser(DCUNet(), OUVE(), Score(scale=-1.0)).cuda().eval(),
        "regeneration": regeneration.cuda().eval(),
        "score": Denoiser(NCSNpp(**SMALL, time_division="pyramid"), OUVE(), Score(scale=-1.0)).cuda().eval(),  # type: ignore[arg-type]
        "bridge": Denoiser(NCSNpp(**SMALL), SchroedingerBridge(), X0()).cuda().eval(),  # type: ignore[arg-type]
    }
    failed = 0

    def check(name: str, passed: bool) -> None:
        nonlocal failed
        failed += not passed
        print("ok    " if passed else "FAILED", name, flush=True)

    whole_y = 0.3 * torch.randn(3, 1, 257, 64, dtype=torch.complex64, device="cuda")
    for precision in ("float32", "bfloat16", "float16"):
        for kind, sampler in SAMPLERS:
            plain = accelerate(models[kind], Acceleration(precision))
            graphed = accelerate(models[kind], Acceleration(precision, graphs=4))
            y = whole_y if kind == "DCUNet" else whole_y[:, :, :256].contiguous()

            def run(sample: object, denoiser: Denoiser, y: torch.Tensor = y) -> torch.Tensor:
                with torch.no_grad():
                    observation, condition = denoiser.observe(y)
                start = denoiser.process.start(SampleNoise([7, 8, 9], "cuda")(y), observation)
                noise = SampleNoise([1, 2, 3], "cuda")
                return sample(denoiser, start, observation, noise, None, **condition)  # type: ignore[operator]

            name = f"{precision}, {type(sampler).__name__} on the {kind} model"
            expected = run(sampler, plain)
            check(f"graph per call equals eager: {name}", torch.equal(run(sampler, graphed), expected))
            whole = GraphedSampler(sampler)
            check(f"graph of the loop equals eager: {name}", torch.equal(run(whole, plain), expected))
            again = run(whole, plain)
            check(f"the graph replays: {name}", torch.equal(again, expected))
            check(f"no step waits: {name}", not waits(partial(run, partial(steps_only, sampler), graphed)))
    for case_name, case in CASES.items():
        for sampler_name, sampler in EVERY_SAMPLER.items():
            check(f"no step waits: {sampler_name} on {case_name}", not waits(steps_of(sampler, case, "cuda")))
    y = whole_y[:, :, :256].contiguous()
    rounded = accelerate(models["bridge"], Acceleration(graphs=2, batches=(4,)))
    exact = accelerate(models["bridge"], Acceleration(graphs=2))
    close = torch.allclose(rounded(y, 0.5, y).x0, exact(y, 0.5, y).x0, rtol=1e-3, atol=1e-4)
    check("a batch of 3 in a graph of 4", close and rounded(y, 0.5, y).x0.shape == y.shape)
    torch.backends.cudnn.allow_tf32 = False
    for precision, rounding in TRAINING.items():
        plain, found = (trained(precision, graphs) for graphs in (False, True))
        apart = float((found - plain).norm() / plain.norm())
        check(f"training in graphs is plain training, {precision}: {apart:.1e} apart", apart < rounding)
    return int(failed > 0)


def trained(precision: str, graphs: bool) -> torch.Tensor:
    """How far the weights of a small network are moved by steps with another shape, a second call and validation
    between them; a step that used stale inputs or gradients would move them elsewhere."""
    torch.manual_seed(0)
    network = ResidualUNet(dim=16, dim_mults=(1, 2)).cuda().train()
    recorded = GraphedTraining(network, compile=False) if graphs else None
    before = torch.cat([weight.detach().flatten() for weight in network.parameters()])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)  # unlike Adam's, its steps show the gradient as it is
    generator = torch.Generator("cuda").manual_seed(0)
    for step in range(9):
        if recorded is not None:
            recorded.begin_step()
        side = 32 if step == 4 else 64
        x, y = torch.randn(2, 4, 3, side, side, device="cuda", generator=generator).unbind()
        t = torch.rand(4, device="cuda", generator=generator)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = (network(x, t, y) - y).square().mean()
            if step == 6:
                loss = loss + (network(y, t, x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 5:
            network.eval()
            with torch.no_grad():
                network(x[:1, :, :48], t[:1], y[:1, :, :48])
            network.train()
    return torch.cat([weight.detach().flatten() for weight in network.parameters()]) - before


def waits(run: Callable[[], object]) -> bool:
    """Whether `run` waits for the GPU, after a run that may."""
    run()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        print(error)
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


if __name__ == "__main__":
    sys.exit(main())
