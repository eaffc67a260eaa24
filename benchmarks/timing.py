"""What the speed benchmarks share: times on a GPU, kernels, results as JSON and as a table in the documentation."""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from ornstein.acceleration.training import COMPILER, GraphedTraining
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.objectives.denoising import Objective

Network = TypeVar("Network", bound=nn.Module)

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"


def need_gpu() -> None:
    """Raises UserError where there is none."""
    if not torch.cuda.is_available():
        raise UserError("this measures a GPU and there is none; run it on a machine with CUDA")


def machine() -> str:
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


def milliseconds(function: Callable[[], object], repeats: int = 20, warm_up: int = 5) -> float:
    """Median time of a call, by CUDA events."""
    for _ in range(warm_up):
        function()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def first_call(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the seconds that it took: compilation and recording are in them."""
    begin = time.perf_counter()
    value = function()
    torch.cuda.synchronize()
    return value, time.perf_counter() - begin


def random_network(make: Callable[[], Network]) -> Network:
    """A network with random weights that are large enough everywhere to show rounding errors."""
    torch.manual_seed(0)
    made = make()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1 and float(parameter.std()) < 1e-6:  # layers that start as nearly zero
                nn.init.normal_(parameter, std=(parameter[0].numel()) ** -0.5)
    return made


def one_step(denoiser: Denoiser, objective: Objective, x0: Tensor, y: Tensor, variant: str) -> Callable[[], None]:
    """A training step as `fit` does it: Adam, gradients clipped to 5, an average of the weights; `variant` says
    bfloat16, compiled, graph and channels last where it is meant."""
    network = denoiser.network.train()
    if "channels last" in variant:
        convert_conv2d_weight_memory_format(network, torch.channels_last)
    graphs = GraphedTraining(network, "compiled" in variant) if "graph" in variant else None
    if graphs is None and "compiled" in variant:
        network.compile(options=COMPILER)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-4, fused=True)
    average = [p.detach().clone() for p in network.parameters()]
    generator = torch.Generator(x0.device).manual_seed(0)

    def step() -> None:
        if graphs is not None:
            graphs.begin_step()
        with torch.autocast(x0.device.type, torch.bfloat16, enabled="bfloat16" in variant):
            loss = objective(denoiser, x0, y, generator=generator)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, [p.detach() for p in network.parameters()], 0.001)

    return step


def exact(function: Callable[[], Tensor]) -> Tensor:
    """The result in float32 without TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return function()
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


KINDS = {
    "convolution, weight gradient": "wgrad|bwd_filter",
    "convolution, input gradient": "dgrad|bwd_data",
    "convolution": "fprop|conv|implicit_gemm|nchwToNhwc|nhwcToNchw",
    "matrix product or attention": "gemm|flash|fmha|cutlass|nvjet",
    "fused reduction": "^triton_(red|per)",
    "fused elementwise": "^triton_poi",
    "optimizer": "multi_tensor|FusedAdam|lerp",
    "copy": "copy|Memcpy|CatArray",
    "normalisation": "Norm|RowwiseMoments",
}


def profile(step: Callable[[], object], title: str, rows: int = 18) -> list[dict[str, Any]]:
    """The kernels that take longest in one call."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with record(activities=[ProfilerActivity.CUDA]) as recorded:
        step()
        torch.cuda.synchronize()
    kernels = [e for e in recorded.key_averages() if e.self_device_time_total > 0]
    kernels.sort(key=lambda e: -e.self_device_time_total)
    total = sum(e.self_device_time_total for e in kernels)
    print(f"profile of {title}: {total / 1000:.2f} ms in {sum(e.count for e in kernels)} kernels")
    kinds: dict[str, float] = {}
    for e in kernels:
        kind = next((name for name, pattern in KINDS.items() if re.search(pattern, e.key)), "other")
        kinds[kind] = kinds.get(kind, 0.0) + e.self_device_time_total / 1000
    print("  " + ", ".join(f"{kind} {ms:.2f} ms" for kind, ms in sorted(kinds.items(), key=lambda item: -item[1])))
    found = [{"kernel": f"all of kind {kind}", "calls": 0, "ms": ms} for kind, ms in kinds.items()]
    for e in kernels[:rows]:
        found.append({"kernel": e.key[:90], "calls": e.count, "ms": e.self_device_time_total / 1000})
        print(f"  {e.self_device_time_total / 1000:8.3f} ms {e.count:5d} x {e.key[:90]}")
    return [{"kernel": "total", "calls": sum(e.count for e in kernels), "ms": total / 1000}, *found]


def write_json(path: Path, results: dict[str, Any]) -> None:
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")


def write_table(name: str, table: str, page: Path = PAGE) -> None:
    """Put `table` between <!-- name --> and <!-- /name --> of the page.

    Raises:
        UserError: the page has no such place.
    """
    text, found = re.subn(
        rf"<!-- {name} -->.*<!-- /{name} -->",
        lambda _: f"<!-- {name} -->\n{table}<!-- /{name} -->",
        page.read_text(),
        flags=re.DOTALL,
    )
    if found != 1:
        raise UserError(f"{page} needs one place between <!-- {name} --> and <!-- /{name} -->")
    with atomic_path(page, overwrite=True) as temporary:
        temporary.write_text(text)


def rows(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *lines)]


def show(part: str, row: str, values: dict[str, Any]) -> None:
    said = (f"{k} {v}" if isinstance(v, str) else f"{k} {v:.4g}" for k, v in values.items() if v is not None)
    print(part, "|", row, "|", ", ".join(said), flush=True)
