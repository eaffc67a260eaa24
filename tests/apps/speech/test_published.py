"""Published checkpoints give their published outputs, and go on giving them after conversion."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from reference_vectors import OWN, ReferenceFile, reference_files
from safetensors import safe_open
from torch import Tensor

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.errors import UserError
from ornstein.networks import dcunet
from ornstein.networks.dcunet import ARCHITECTURES
from ornstein.networks.ncsnpp import from_published
from ornstein.parameterization import Score
from ornstein.process.affine import expand
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.regeneration import StochasticRegeneration
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.compat_bridge import PublishedBridge
from ornstein.samplers.compat_uniform_steps import PublishedUniformSteps
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.predictor_corrector import AnnealedLangevin, Langevin, PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid, UserGrid
from ornstein_speech.enhance import Enhancer
from ornstein_speech.preconditioning import Preconditioned
from ornstein_speech.published import components as published_components
from ornstein_speech.published import import_checkpoint, read_published
from ornstein_speech.representation import CompressedSpectrogram

TINY = OWN / "speech" / "tiny_sgmse_ouve.ckpt"
TINY_DCUNET = (  # the architecture that the vectors call "tiny"
    (4, (4, 4), (1, 1), (1, 1)),
    (4, (4, 4), (1, 1), (1, 1)),
    (8, (4, 4), (2, 1), (2, 1)),
    (8, (4, 4), (2, 2), (4, 1)),
)


def assert_close(ours: Tensor, published: Tensor, tolerance: float) -> None:
    """Error relative to the largest published value."""
    assert ours.shape == published.shape
    assert float((ours - published).abs().max()) <= tolerance * float(published.abs().max())


def replay(draws: Tensor) -> Callable[[Tensor], Tensor]:
    remaining = iter(draws)
    return lambda like: next(remaining)


@reference_files("speech", "tiny_*.ckpt", cases=lambda v: ["raw", "ema"], needs=["*_outputs.npz"])
def test_score(vectors: ReferenceFile, case: Literal["raw", "ema"]) -> None:
    expected = ReferenceFile(vectors.beside("*_outputs.npz"))
    denoiser, *_ = read_published(vectors.path, case)
    x, y, t = (expected.tensor(name) for name in ("x", "y", "t"))
    with torch.no_grad():
        assert_close(denoiser(x, t, y).score, expected.tensor(f"forward_{case}"), 1e-4)


@reference_files("speech", "tiny_*.ckpt", needs=["*_outputs.npz"])
def test_enhancement_before_and_after_conversion(vectors: ReferenceFile, tmp_path: Path) -> None:
    expected = ReferenceFile(vectors.beside("*_outputs.npz"))
    wave, steps = expected.tensor("wave"), int(expected.number("N"))
    peak = wave.abs().max()
    import_checkpoint(vectors.path, tmp_path / "tiny.safetensors")
    loaded = checkpoint.load(tmp_path / "tiny.safetensors", app="speech")
    published = checkpoint.Checkpoint(*read_published(vectors.path))
    assert loaded.info == published.info
    assert loaded.sampler == published.sampler

    results = []
    for model in (published, loaded):
        assert isinstance(model.sampler, PredictorCorrector)
        y = model.representation.pad_frames(model.representation.forward(wave[None] / peak))
        assert_close(y, expected.tensor("Y"), 1e-5)
        noise = replay(expected.tensor("noise"))
        x = model.denoiser.process.start(noise(y), y)
        sample = dataclasses.replace(model.sampler, steps=steps)(model.denoiser, x, y, noise)
        assert_close(sample, expected.tensor("sample"), 1e-3)
        enhanced = model.representation.inverse(sample, wave.shape[-1])[0, 0] * peak
        assert_close(enhanced, expected.tensor("enhanced"), 1e-3)
        results.append(enhanced)
    assert torch.equal(*results)


def options_of(path: Path = TINY) -> dict[str, Any]:
    return checkpoint.read_lightning(path).hyper_parameters | {"data_module_cls": None}


def write(path: Path, source: Path = TINY, weights: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """A Lightning file with the contents of `source`, other weights and other options; the option "-" is left out."""
    original = checkpoint.read_lightning(source)
    state = original.state_dict if weights is None else {f"dnn.{name}": tensor for name, tensor in weights.items()}
    options = {name: value for name, value in (options_of(source) | changes).items() if value != "-"}
    buffers = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms: not averaged
    averages = [t for name, t in state.items() if name.startswith("dnn.") and not name.endswith(buffers)]
    ema = {"decay": 0.999, "num_updates": 1, "shadow_params": averages, "collected_params": None}
    torch.save({"epoch": 3, "global_step": 7, "state_dict": state, "hyper_parameters": options, "ema": ema}, path)
    return path


@reference_files("speech", "ncsnpp_*tiny*.npz", needs=["x", "y", "t", "out", "config", ".safetensors"])
def test_network_output_becomes_the_published_estimate(vectors: ReferenceFile, tmp_path: Path) -> None:
    """Spec 3.5: minus the score for ncsnpp and ncsnpp_48k, data prediction for ncsnpp_v2."""
    config = vectors.json("config")
    v2 = config["backbone"] == "ncsnpp_v2"
    loss = "data_prediction" if v2 else "score_matching"
    path = write(tmp_path / "a.ckpt", weights=vectors.weights(), **config, loss_type=loss)
    denoiser, *_ = read_published(path)
    x, y, t = (vectors.tensor(name) for name in ("x", "y", "t"))
    with torch.no_grad():
        estimate = denoiser.double()(x.to(torch.complex128), t, y.to(torch.complex128))
    assert_close(estimate.x0 if v2 else -estimate.score, vectors.tensor("out"), 1e-7)


@pytest.mark.parametrize("sde", ["ouve", "sbve"])
@pytest.mark.parametrize("loss", ["score_matching", "denoiser", "data_prediction"])
def test_scalings_of_v2(tmp_path: Path, sde: str, loss: str) -> None:
    vectors = ReferenceFile(OWN / "speech" / "ncsnpp_v2_tiny.npz")
    x, y = (vectors.tensor(name)[..., :8] for name in ("x", "y"))
    t, d = vectors.tensor("t"), 0.3
    scalings = [  # every value of every option
        ("1", "1", "0", None),
        ("edm", "edm", "edm", "1/sigma"),
        ("edm", "sigma", "0", "1/t"),
        ("1", "1/sigma", "edm", None),
    ]
    for c_in, c_out, c_skip, scaling in scalings:
        options = {"c_in": c_in, "c_out": c_out, "c_skip": c_skip, "network_scaling": scaling, "sigma_data": d}
        options |= vectors.json("config") | {"sde": sde, "loss_type": loss}
        path = write(tmp_path / "a.ckpt", weights=vectors.weights(), **options)
        denoiser, *_ = read_published(path)
        s = denoiser.process.coefficients(t).s
        n = s**2 + d**2
        inner = expand(1 / n.sqrt() if c_in == "edm" else torch.ones_like(t), x)
        outer = {"1": torch.ones_like(t), "sigma": s, "1/sigma": 1 / s, "edm": s * d / n.sqrt()}[c_out]
        skip = d**2 / n if c_skip == "edm" else torch.zeros_like(t)
        divisor = {None: torch.ones_like(t), "1/sigma": s, "1/t": t}[scaling]
        with torch.no_grad():
            raw = denoiser.network(inner * x, t.float(), inner * y) / expand(divisor, x)
            estimate = denoiser(x, t, y)
        if loss == "denoiser":
            ours, theirs = estimate.score, (raw - x) / expand(s**2, x)
        else:
            ours = estimate.x0 if loss == "data_prediction" else estimate.score
            theirs = expand(skip, x) * x + expand(outer, x) * raw
        assert_close(ours, theirs, 1e-5)


def test_a_scaled_model_survives_conversion(tmp_path: Path) -> None:
    vectors = ReferenceFile(OWN / "speech" / "ncsnpp_v2_tiny.npz")
    options = vectors.json("config") | {"loss_type": "data_prediction", "c_in": "edm"}
    path = write(tmp_path / "a.ckpt", weights=vectors.weights(), **options)
    import_checkpoint(path, tmp_path / "a.safetensors")
    x, y, t = (vectors.tensor(name) for name in ("x", "y", "t"))
    before, after = read_published(path)[0], checkpoint.load(tmp_path / "a.safetensors").denoiser
    with torch.no_grad():
        assert torch.equal(before(x, t, y).x0, after(x, t, y).x0)


def components(path: Path) -> tuple[Any, ...]:
    denoiser, representation, sampler, _ = read_published(path)
    return denoiser.process, denoiser.parameterization, representation, sampler


def test_options_become_components(tmp_path: Path) -> None:
    process, parameterization, representation, sampler = components(TINY)
    assert process == OUVE(1.5, 0.05, 0.5)
    assert parameterization == Score(-1.0)
    assert representation == CompressedSpectrogram(126, 32)
    assert sampler == PredictorCorrector()
    changes = {"theta": 2, "sigma_min": 0.1, "sigma_max": 1, "t_eps": 0.05, "N": 50, "snr": 0.33, "corrector_steps": 2}
    stft = {"spec_factor": 0.065, "spec_abs_exponent": 0.667, "window": "sqrthann", "transform_type": "log", "sr": 8000}
    process, _, representation, sampler = components(write(tmp_path / "a.ckpt", **changes, **stft))
    assert process == OUVE(2.0, 0.1, 1.0)
    assert representation == CompressedSpectrogram(126, 32, "sqrthann", "log", 0.667, 0.065, 8000)
    assert sampler == PredictorCorrector(50, UniformGrid(end=0.05, to_zero=True), AnnealedLangevin(0.33), 2)
    for corrector, ours in (("langevin", Langevin()), ("none", None)):
        assert components(write(tmp_path / "a.ckpt", corrector=corrector))[3].corrector == ours
    ode = components(write(tmp_path / "a.ckpt", sampler_type="ode", t_eps=0.02))[3]
    assert ode == ProbabilityFlowODE(grid=UniformGrid(end=0.02))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("ode", "ode"), ("sde", "sde"), ("sb_ode", "ode"), ("sb_sde", "sde"), ("pc", "ode"), ("-", "ode")],
)
def test_bridges(tmp_path: Path, kind: str, mode: Literal["sde", "ode"]) -> None:
    vectors = ReferenceFile(OWN / "speech" / "ncsnpp_v2_tiny.npz")
    options = vectors.json("config") | {"sde": "sbve", "loss_type": "data_prediction", "k": 10, "c": 0.01, "N": "-"}
    path = write(tmp_path / "a.ckpt", weights=vectors.weights(), **options, sampler_type=kind)
    process, parameterization, representation, sampler = components(path)
    assert process == SchroedingerBridge(10.0, 0.01, 1e-8)
    assert parameterization == Preconditioned("x0")
    assert representation.padding == "reflect"
    assert sampler == PublishedBridge(50, UniformGrid(end=1e-4), mode)


def test_48_khz(tmp_path: Path) -> None:
    vectors = ReferenceFile(OWN / "speech" / "ncsnpp_48k_tiny.npz")
    path = write(tmp_path / "a.ckpt", weights=vectors.weights(), **vectors.json("config"))
    _, parameterization, representation, _ = components(path)
    assert parameterization == Score(-1.0)
    assert (representation.sample_rate, representation.padding) == (48000, "reflect")


def test_the_step_rule_of_before_june_2024(tmp_path: Path) -> None:
    _, _, sampler, _ = read_published(TINY, step_rule="uniform")
    grid = UniformGrid(end=0.03, to_zero=True)
    assert sampler == PublishedUniformSteps(30, grid, AnnealedLangevin(0.5), 1)
    target = tmp_path / "a.safetensors"
    assert main(["speech", "import", str(TINY), "-o", str(target), "--step_rule", "uniform"]) == 0
    loaded = checkpoint.load(target)
    assert loaded.sampler == sampler
    wave = 0.1 * torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    ours, todays = (Enhancer(path, steps=3, device="cpu") for path in (target, imported(TINY, tmp_path)))
    assert not torch.equal(ours(wave, 16000), todays(wave, 16000))
    with pytest.raises(UserError, match="only the predictor-corrector"):
        read_published(write(tmp_path / "a.ckpt", sampler_type="ode"), step_rule="uniform")


def imported(path: Path, folder: Path) -> Path:
    return import_checkpoint(path, folder / f"{path.stem}.safetensors", overwrite=True)


@reference_files("speech", "dcunet_tiny*.npz", needs=["x", "y", "t", "out", "config", ".safetensors"])
def test_score_of_dcunet(vectors: ReferenceFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Minus the output; the batch norms' statistics come from the state dict, as the averages do not hold them."""
    if vectors.json("config")["dcunet_architecture"] == "tiny":
        monkeypatch.setitem(ARCHITECTURES, "tiny", TINY_DCUNET)
    weights = in_order(vectors)
    n_fft = 2 * (vectors.tensor("x").shape[-2] - 1)
    path = write(tmp_path / "a.ckpt", weights=weights, **vectors.json("config"), n_fft=n_fft, hop_length=n_fft // 4)
    denoiser, representation, _, info = read_published(path)
    assert representation == CompressedSpectrogram(n_fft, n_fft // 4)
    assert info["backbone"] == "dcunet"
    x, y, t = (vectors.tensor(name) for name in ("x", "y", "t"))
    with torch.no_grad():
        score = denoiser.double()(x.to(torch.complex128), t, y.to(torch.complex128)).score
    assert_close(-score, vectors.tensor("out"), 1e-7)
    wave = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    assert Enhancer(imported(path, tmp_path), steps=1, device="cpu")(wave, 16000).isfinite().all()


def in_order(vectors: ReferenceFile) -> dict[str, Tensor]:
    stored = vectors.weights()
    return {name: stored[name] for name in dcunet.from_published(vectors.json("config")).state_dict()}


STORM_SIZE: dict[str, Any] = {"nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [0]}


def storm_file(path: Path, condition: str = "both") -> tuple[Path, dict[str, torch.nn.Module]]:
    """A file of StoRM with random averages, and the networks of these."""
    torch.manual_seed(0)
    channels = 6 if condition == "both" else 4
    nets = {
        "denoiser_net": from_published("ncsnpp", {**STORM_SIZE, "discriminative": True}),
        "score_net": from_published("ncsnpp", {**STORM_SIZE, "input_channels": channels}),
    }
    for net in nets.values():
        for parameter in net.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    averaged = {f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()}
    raw = {name: torch.zeros_like(tensor) for name, tensor in averaged.items()}
    options: dict[str, Any] = {"backbone_denoiser": "ncsnpp", "backbone_score": "ncsnpp", "condition": condition}
    options |= {"sde": "ouve", "theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5, "sde_n": 1000, "t_eps": 0.03}
    options |= {"n_fft": 62, "hop_length": 16, "spec_factor": 0.33, "spec_abs_exponent": 0.5, "loss_type_score": "mse"}
    options |= {"input_channels": channels, "discriminative": False, "mode": "regen-joint-training", **STORM_SIZE}
    ema = {"decay": 0.999, "num_updates": 1, "shadow_params": list(averaged.values()), "collected_params": None}
    torch.save({"epoch": 1, "global_step": 2, "state_dict": raw, "hyper_parameters": options, "ema": ema}, path)
    return path, nets


@pytest.mark.parametrize("condition", ["both", "noisy", "post_denoiser"])
def test_storm(tmp_path: Path, condition: str) -> None:
    """The published regeneration, step by step: D(y) once, then N predictor steps towards it."""
    path, nets = storm_file(tmp_path / "storm.ckpt", condition)
    denoiser, representation, sampler, info = read_published(path)
    assert sampler == PredictorCorrector(30, UniformGrid(end=0.03, to_zero=True), None)
    assert representation == CompressedSpectrogram(62, 16, factor=0.33)
    assert info["backbone_score"] == "ncsnpp"
    generator = torch.Generator().manual_seed(0)
    y, z = torch.randn(2, 1, 1, 32, 8, dtype=torch.complex64, generator=generator)
    draws = torch.randn(3, 1, 1, 32, 8, dtype=torch.complex64, generator=generator)
    with torch.no_grad():
        target = nets["denoiser_net"](y, None)
        seen = {"both": [y, target], "noisy": [y], "post_denoiser": [target]}[condition]
        std = OUVE().coefficients(torch.tensor(1.0, dtype=torch.float64)).s.float()
        x = mean = target + std * z
        for i, t in enumerate(torch.linspace(1, 0.03, 4)):
            dt = 0.97 / 3 if i < 3 else 0.03
            score = -nets["score_net"](x, t[None], torch.cat(seen, 1))
            g = 0.05 * 10**t * (2 * torch.tensor(10.0).log()) ** 0.5
            mean = x - (1.5 * (target - x) - g**2 * score) * dt
            x = mean + (g * dt**0.5 * draws[i] if i < 3 else 0)
        observation, given = denoiser.observe(y)
        assert_close(observation, target, 1e-6)
        start = denoiser.process.start(z, observation)
        ours = dataclasses.replace(sampler, steps=4)(denoiser, start, observation, replay(draws), None, **given)
    assert_close(ours, mean, 1e-4)
    wave = 0.1 * torch.randn(1500, generator=generator)
    enhanced = [Enhancer(imported(path, tmp_path), steps=2, device="cpu")(wave, 16000) for _ in range(2)]
    assert torch.equal(*enhanced)
    assert enhanced[0].abs().max() > 0


def test_sizes_of_storm_that_its_files_leave_out() -> None:
    """Key lists of the published networks: 27,342,350 and 27,776,038 parameters, and nothing about their sizes."""
    lists = {name: ReferenceFile(OWN / "speech" / f"keys_storm_{name}.json") for name in ("denoiser_2ch", "score_6ch")}
    prefixes = {"denoiser_2ch": "denoiser_net.", "score_6ch": "score_net."}
    options = {"backbone_denoiser": "ncsnpp", "backbone_score": "ncsnpp", "sde": "ouve", "input_channels": 6}
    with torch.device("meta"):
        tensors = {
            prefixes[name] + key: torch.empty(shape) for name, keys in lists.items() for key, shape in keys["tensors"]
        }
        denoiser, *_ = published_components(options, tensors)
    assert isinstance(denoiser, StochasticRegeneration)
    counts = [sum(p.numel() for p in net.parameters()) for net in (denoiser.predictor, denoiser.network)]
    assert counts == [lists[name]["n_parameters"] for name in prefixes] == [27_342_350, 27_776_038]


def test_predictive_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = from_published("ncsnpp", {**STORM_SIZE, "discriminative": True})
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    options = {**STORM_SIZE, "discriminative": True, "n_fft": 62, "hop_length": 16, "loss_type": "mse"}
    path = write(tmp_path / "a.ckpt", weights=dict(net.state_dict()), **options)
    denoiser, representation, sampler, _ = read_published(path)
    assert sampler == Ancestral(1, UserGrid((1.0, 0.0)), eta=0.0)
    y = torch.randn(2, 1, 32, 64, dtype=torch.complex64)
    with torch.no_grad():
        assert torch.equal(sampler(denoiser, y, y), net(y, None))
    wave = 0.1 * torch.randn(1500, generator=torch.Generator().manual_seed(0))
    wave -= wave.mean()
    enhancer = Enhancer(imported(path, tmp_path), device="cpu")
    spec = representation.pad_frames(representation.forward(wave[None, None] / wave.abs().max()))
    with torch.no_grad():
        expected = representation.inverse(net(spec, None), len(wave))[0, 0] * wave.abs().max()
    torch.testing.assert_close(enhancer(wave, 16000), expected)
    assert enhancer.evaluations == 1
    for change in ({"steps": 5}, {"sampler": "sde"}, {"grid": "power"}):
        with pytest.raises(UserError, match="predictive model of one call"):
            Enhancer(imported(path, tmp_path), **change, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone_score": "convtasnet"}, "'convtasnet' is not built"),
        ({"condition": "clean"}, "condition 'clean' is not supported"),
        ({"condition": "noisy"}, "make no network"),
        ({"return_time": True}, "on waveforms"),
        ({"backbone_denoiser": "none"}, "'none' is not built"),
        ({"sde": "ouvp"}, "'ouvp' is not supported"),
        ({"backbone_denoiser": None}, "no StoRM checkpoint"),
    ],
)
def test_files_of_storm_that_are_not_supported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    path, _ = storm_file(tmp_path / "storm.ckpt")
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= changes
    torch.save(content, path)
    assert message in complaint(capsys, path, tmp_path / "a.safetensors")


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_files_of_2022(tmp_path: Path, loss: str) -> None:
    newer = ("sampler_type", "sr", "c_in", "c_out", "c_skip", "network_scaling", "sigma_data", "l1_weight")
    absent = dict.fromkeys((*newer, "pesq_weight", "loss_weighting"), "-")
    path = write(tmp_path / "a.ckpt", loss_type=loss, N=1000, centered=True, **absent)
    assert components(path) == components(TINY)


def test_a_pesq_loss_in_the_file_stays_behind(tmp_path: Path) -> None:
    content = torch.load(write(tmp_path / "a.ckpt"), weights_only=False)
    content["state_dict"]["pesq_loss.bands"] = torch.zeros(3)
    torch.save(content, tmp_path / "a.ckpt")
    denoiser, *_ = read_published(tmp_path / "a.ckpt")
    assert not any("pesq" in name for name in denoiser.state_dict())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "tiny.safetensors"
    assert main(["speech", "import", str(TINY), "-o", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    enhancer = Enhancer(target, steps=2, device="cpu")
    wave = ReferenceFile(ReferenceFile(TINY).beside("*_outputs.npz")).tensor("wave")
    assert enhancer(wave, 16000).shape == wave.shape
    assert "exists" in complaint(capsys, TINY, target)
    assert main(["speech", "import", str(TINY), "-o", str(target), "--weights", "raw", "--half", "--overwrite"]) == 0
    with safe_open(target, framework="pt") as file:
        assert '"weights": "raw"' in file.metadata()["ornstein"]
        stored = file.get_tensor("network.all_modules.1.weight")
    raw = checkpoint.read_lightning(TINY).state_dict["dnn.all_modules.1.weight"]
    assert torch.equal(stored, raw.half())


def test_sampler_settings_to_keep(tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    assert main(["speech", "import", str(TINY), "-o", str(target), "--steps", "50", "--snr", "0.33"]) == 0
    assert checkpoint.load(target).sampler == PredictorCorrector(50, corrector=AnnealedLangevin(0.33))
    for settings, message in (({"steps": 0}, "--steps 0"), ({"snr": -1.0}, "--snr -1")):
        with pytest.raises(UserError, match=message):
            import_checkpoint(TINY, tmp_path / "b.safetensors", **settings)  # type: ignore[arg-type]
    path, _ = storm_file(tmp_path / "storm.ckpt")
    with pytest.raises(UserError, match=r"no corrector for --snr 0\.5;"):
        import_checkpoint(path, tmp_path / "b.safetensors", snr=0.5)
    adaptive = write(tmp_path / "ode.ckpt", sampler_type="ode")
    with pytest.raises(UserError, match=r"--steps 9 has no effect on .* which adapts its step"):
        import_checkpoint(adaptive, tmp_path / "b.safetensors", steps=9)


def complaint(capsys: pytest.CaptureFixture[str], source: Path, target: Path) -> str:
    """Expect exit code 2, one line that names the file, and no output; return the line."""
    capsys.readouterr()
    assert main(["speech", "import", str(source), "-o", str(target)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert str(source) in captured.err or str(target) in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "dcunet"}, "make no network"),
        ({"backbone": "dcunet", "dcunet_norm_type": "CbN"}, "'CbN' is not built"),
        ({"backbone": "dcunet", "loss_type": "data_prediction"}, "with ncsnpp_v2 it is"),
        ({"backbone": "dcunet", "discriminative": True}, "dcunet without y"),
        ({"backbone": "other"}, "backbone 'other' is not built"),
        ({"backbone": "-"}, "no SGMSE+ checkpoint"),
        ({"sde": "ouvp"}, "'ouvp' is not supported"),
        ({"sde": 3}, "no SGMSE+ checkpoint"),
        ({"loss_type": "other"}, "'other' is not supported"),
        ({"loss_type": "data_prediction"}, "with ncsnpp_v2 it is"),
        ({"sampler_type": "other"}, "'other' is not supported"),
        ({"sde": "sbve", "sampler_type": "other"}, "'other' is not supported"),
        ({"corrector": ["ald"]}, "corrector ['ald'] is not supported"),
        ({"window": "kaiser"}, "window is 'kaiser'|expected"),
        ({"n_fft": "many"}, "expected int"),
        ({"theta": [1]}, "expected float"),
        ({"ch_mult": [1, 2, 2]}, "make no network"),
        ({"ch_mult": 3}, "make no network"),
        ({"nf": "8"}, "make no network"),
        ({"fir": False}, "fir = False is not built"),
        ({"discriminative": True}, "make no network"),
        ({"input_channels": 4, "spatial_channels": 2}, "several microphones"),
    ],
)
def test_what_is_not_supported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    found = complaint(capsys, write(tmp_path / "a.ckpt", **changes), tmp_path / "a.safetensors")
    assert any(part in found for part in message.split("|")), found
    assert not (tmp_path / "a.safetensors").exists()


def test_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "a.safetensors"
    (tmp_path / "text.ckpt").write_text("hello")
    assert "no PyTorch checkpoint" in complaint(capsys, tmp_path / "text.ckpt", target)
    assert "there is no file" in complaint(capsys, tmp_path / "missing.ckpt", target)
    torch.save({"state_dict": {"denoiser_net.a": torch.ones(1)}, "hyper_parameters": {}}, tmp_path / "storm.ckpt")
    assert "no StoRM checkpoint: its options name no backbone" in complaint(capsys, tmp_path / "storm.ckpt", target)
    torch.save({"state_dict": {"net.a": torch.ones(1)}}, tmp_path / "other.ckpt")
    assert "no SGMSE+ checkpoint" in complaint(capsys, tmp_path / "other.ckpt", target)
    torch.save({"state_dict": {}, "ornstein": {"app": "speech"}}, tmp_path / "own.ckpt")
    assert "ornstein speech export" in complaint(capsys, tmp_path / "own.ckpt", target)


def test_missing_averages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(write(tmp_path / "a.ckpt"), weights_only=False)
    del content["ema"]
    torch.save(content, tmp_path / "a.ckpt")
    assert "--weights raw" in complaint(capsys, tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="--weights raw"):
        read_published(tmp_path / "a.ckpt")
    import_checkpoint(tmp_path / "a.ckpt", tmp_path / "a.safetensors", weights="raw")
