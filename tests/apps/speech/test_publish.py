"""Our checkpoints in the published layout, and back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference_vectors import OWN
from torch import Tensor, nn

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.config import describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.dcunet import DCUNet
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0, Mean, Noise, OneShot, Score
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.process.prediction import Prediction
from ornstein.process.ve import VE
from ornstein.regeneration import StochasticRegeneration
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.compat_bridge import PublishedBridge
from ornstein.samplers.compat_uniform_steps import PublishedUniformSteps
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.predictor_corrector import AnnealedLangevin, Langevin, PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid, UserGrid
from ornstein_speech.enhance import Enhancer
from ornstein_speech.export import export
from ornstein_speech.preconditioning import Preconditioned
from ornstein_speech.published import import_checkpoint, read_published
from ornstein_speech.representation import CompressedSpectrogram

TINY = OWN / "speech" / "tiny_sgmse_ouve.ckpt"
SIZE: dict[str, Any] = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (), "image_size": 32}
STFT: dict[str, Any] = {"n_fft": 62, "hop": 16}
GRID = UniformGrid(end=0.03, to_zero=True)
ONE_SHOT = Ancestral(1, UserGrid((1.0, 0.0)), eta=0.0)
PREDICTOR: dict[str, Any] = {**SIZE, "input_channels": 2, "time_conditioned": False}


def noisy(network: nn.Module) -> nn.Module:
    """The network with weights, and statistics, that are nowhere trivial."""
    generator = torch.Generator().manual_seed(0)
    for tensor in [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]:
        tensor.data += 0.1 * torch.rand(tensor.shape, generator=generator)
    return network


def score_model(**options: Any) -> Denoiser:
    return Denoiser(noisy(NCSNpp(**SIZE, time_division="pyramid", **options)), OUVE(), Score(-1.0))


def bridge(parameterization: Any = None, eps: float = 1e-8) -> Denoiser:
    return Denoiser(noisy(NCSNpp(**SIZE)), SchroedingerBridge(2.0, 0.3, eps), parameterization or Preconditioned("x0"))


def storm(conditioning: Any = "both", **predictor: Any) -> Denoiser:
    channels = 6 if conditioning == "both" else 4
    network = noisy(NCSNpp(**SIZE, input_channels=channels, time_division="pyramid"))
    inner = Denoiser(noisy(NCSNpp(**PREDICTOR | predictor)), Prediction(), OneShot())
    return StochasticRegeneration(network, OUVE(2.0), Score(-1.0), inner, conditioning)


NO_CORRECTOR = PredictorCorrector(20, GRID, None)
REFLECT = CompressedSpectrogram(**STFT, padding="reflect")
PLAIN = CompressedSpectrogram(**STFT)
MODELS: dict[str, tuple[Denoiser, CompressedSpectrogram, Sampler]] = {
    "ncsnpp": (score_model(centered=False), PLAIN, PredictorCorrector(50, GRID, AnnealedLangevin(0.33), 2)),
    "ncsnpp, not divided": (
        Denoiser(noisy(NCSNpp(**SIZE, dropout=0.1)), OUVE(), Score(-1.0)),
        CompressedSpectrogram(**STFT, window="sqrthann", transform="log", exponent=1.0, factor=0.2, sample_rate=8000),
        PredictorCorrector(30, UniformGrid(end=0.05, to_zero=True), Langevin(0.2)),
    ),
    "ncsnpp_48k": (
        Denoiser(
            noisy(NCSNpp(**SIZE, time_division="output", progressive="none", progressive_input="none")),
            OUVE(2.0, 0.1, 1.0),
            Score(-1.0),
        ),
        CompressedSpectrogram(**STFT, sample_rate=48000, padding="reflect"),
        NO_CORRECTOR,
    ),
    "ncsnpp_v2": (
        bridge(Preconditioned("x0", "edm", "edm", "edm", "1/sigma", 0.3)),
        REFLECT,
        PublishedBridge(7, mode="sde"),
    ),
    "ncsnpp_v2, plain": (bridge(X0()), REFLECT, PublishedBridge(50, mode="ode")),
    "ncsnpp_v2, mean": (Denoiser(noisy(NCSNpp(**SIZE)), OUVE(), Mean()), REFLECT, PredictorCorrector()),
    "ncsnpp_v2, score": (
        Denoiser(noisy(NCSNpp(**SIZE)), OUVE(), Score()),
        REFLECT,
        ProbabilityFlowODE(grid=UniformGrid(end=0.02)),
    ),
    "dcunet": (
        Denoiser(noisy(DCUNet("DCUNet-10", "ds", 8, 2, 2, "relu", "silu")), OUVE(), Score(-1.0)),
        CompressedSpectrogram(n_fft=64, hop=16, factor=0.333),
        PredictorCorrector(),
    ),
    "storm": (storm(), PLAIN, NO_CORRECTOR),
    "storm, noisy": (storm("noisy"), PLAIN, PredictorCorrector(20, GRID, AnnealedLangevin(0.4))),
    "storm, prediction": (storm("prediction"), PLAIN, NO_CORRECTOR),
    "predictive": (Denoiser(noisy(NCSNpp(**PREDICTOR)), Prediction(), OneShot()), PLAIN, ONE_SHOT),
}


def stored(path: Path, model: tuple[Denoiser, Any, Any], **options: Any) -> Path:
    denoiser, representation, sampler = model
    info = {"epoch": 4, "global_step": 40}
    checkpoint.save(path, denoiser, app="speech", representation=representation, sampler=sampler, info=info, **options)
    return path


def outputs(denoiser: Denoiser) -> list[Tensor]:
    """x0 and score at two times."""
    generator = torch.Generator().manual_seed(1)
    bins = 33 if isinstance(denoiser.network, DCUNet) else 32
    x, y = (torch.randn(2, 1, bins, 8, dtype=torch.complex64, generator=generator) for _ in range(2))
    with torch.no_grad():
        observation, condition = denoiser.observe(y)
        estimate = denoiser.eval()(x, torch.tensor([0.3, 0.8], dtype=torch.float64), observation, **condition)
    return [estimate.x0, estimate.score]


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_is_bit_exact(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    denoiser, representation, sampler = MODELS[name]
    own = stored(tmp_path / "own.safetensors", MODELS[name])
    published, back = tmp_path / "published.ckpt", tmp_path / "back.safetensors"
    assert main(["speech", "export", str(own), "-o", str(published), "--layout", "published", "--note", "a test"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{published}\n"
    assert captured.err == ""
    for weights in ("ema", "raw"):
        assert main(["speech", "import", str(published), "-o", str(back), "--weights", weights, "--overwrite"]) == 0
        again = checkpoint.load(back, "speech")
        assert (again.representation, again.sampler) == (representation, sampler)
        assert again.denoiser.process == denoiser.process
        assert describe(again.denoiser.network) == describe(denoiser.network)
        assert again.info["global_step"] == 40
        for ours, theirs in zip(outputs(denoiser), outputs(again.denoiser), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=0, equal_nan=True)
        for key, tensor in denoiser.state_dict().items():
            assert torch.equal(again.denoiser.state_dict()[key], tensor), key


def test_a_published_file_comes_back_as_it_was(tmp_path: Path) -> None:
    """Names, order, averages and options of the vectors' file."""
    own, published = tmp_path / "own.safetensors", tmp_path / "published.ckpt"
    import_checkpoint(TINY, own)
    export(own, published, layout="published")
    before, after = checkpoint.read_lightning(TINY), checkpoint.read_lightning(published)
    assert list(after.state_dict) == [name for name in before.state_dict if name.startswith("dnn.")]
    assert before.ema is not None
    assert after.ema is not None
    for ours, theirs in zip(after.ema.shadow_params, before.ema.shadow_params, strict=True):
        assert torch.equal(ours, theirs)
    shared = after.hyper_parameters.keys() & before.hyper_parameters.keys()
    assert shared >= {"backbone", "sde", "nf", "ch_mult", "theta", "n_fft", "hop_length", "N", "loss_type", "t_eps"}
    assert {name: after.hyper_parameters[name] for name in shared} == {
        name: before.hyper_parameters[name] for name in shared
    }
    (one, *first), (other, *second) = read_published(TINY), read_published(published)
    assert first[:2] == second[:2]
    assert describe(one) == describe(other)
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))
    assert (after.epoch, after.global_step) == (before.epoch, before.global_step)


def test_the_layout_is_plain_data(tmp_path: Path) -> None:
    own = stored(tmp_path / "own.safetensors", MODELS["dcunet"])
    published = export(own, tmp_path / "published.ckpt", layout="published", note="hello")
    content = torch.load(published, weights_only=True)
    keys = ["epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks"]
    keys += ["optimizer_states", "lr_schedulers", "hparams_name", "hyper_parameters", "ema"]
    assert list(content) == keys
    assert content["hyper_parameters"]["note"] == "hello"
    network = MODELS["dcunet"][0].network
    assert list(content["state_dict"]) == [f"dnn.{name}" for name in network.state_dict()]
    shadows = content["ema"]["shadow_params"]
    assert len(shadows) == len(list(network.parameters()))  # no statistics of batch norms
    assert all(torch.equal(*pair) for pair in zip(shadows, network.parameters(), strict=True))
    both = content["state_dict"]["dnn.output_layer.re_module.bias"], shadows[-3]
    assert torch.equal(*both)
    assert both[0].data_ptr() != both[1].data_ptr()


def test_storm_has_its_predictor_first(tmp_path: Path) -> None:
    own = stored(tmp_path / "own.safetensors", MODELS["storm"])
    content = torch.load(export(own, tmp_path / "published.ckpt", layout="published"), weights_only=True)
    prefixes = [name.partition(".")[0] for name in content["state_dict"]]
    assert prefixes == sorted(prefixes)
    assert set(prefixes) == {"denoiser_net", "score_net"}
    for name, shadow in zip(content["state_dict"], content["ema"]["shadow_params"], strict=True):
        assert torch.equal(content["state_dict"][name], shadow)


def test_raw_weights_have_no_averages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = stored(tmp_path / "own.safetensors", MODELS["ncsnpp"], weights="raw")
    words = ["speech", "export", str(own), "-o", str(tmp_path / "published.ckpt"), "--layout", "published"]
    assert main(words) == 2
    assert "no averaged weights; write those of the last step with --weights raw" in capsys.readouterr().err
    assert main([*words, "--weights", "raw"]) == 0
    assert "ema" not in torch.load(tmp_path / "published.ckpt", weights_only=True)
    read_published(tmp_path / "published.ckpt", "raw")


def test_an_exact_bridge_is_written_with_a_remark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    denoiser = bridge(X0(), eps=0.0)
    own = stored(tmp_path / "own.safetensors", (denoiser, REFLECT, PublishedBridge(5)))
    published = export(own, tmp_path / "published.ckpt", layout="published")
    assert "note: the exact bridge becomes the published one" in capsys.readouterr().err
    again = read_published(published)[0]
    assert again.process == SchroedingerBridge(2.0, 0.3, 1e-8)
    assert torch.equal(outputs(again)[0], outputs(denoiser)[0])


def test_the_sampler_can_be_left_out(tmp_path: Path) -> None:
    own = stored(tmp_path / "own.safetensors", (bridge(), REFLECT, Ancestral(1)))
    published = export(own, tmp_path / "published.ckpt", layout="published", default_sampler=True)
    assert read_published(published)[2] == PublishedBridge(50, UniformGrid(end=1e-4), "ode")
    with pytest.raises(UserError, match="--layout published"):
        export(own, tmp_path / "other.safetensors", default_sampler=True)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ((score_model(), REFLECT, PredictorCorrector()), "its representation; .* padding 'zero' instead of 'reflect'"),
        ((score_model(), PLAIN, Ancestral()), "the sampler Ancestral; --default_sampler"),
        ((score_model(), PLAIN, None), "no sampler; --default_sampler"),
        ((score_model(), None, PredictorCorrector()), "the representation None"),
        ((score_model(), PLAIN, PublishedUniformSteps()), "its sampler; .* PredictorCorrector; --default_sampler"),
        ((score_model(), PLAIN, PredictorCorrector(noise_scale=0.5)), "its sampler; .* noise_scale 1.0 instead of 0.5"),
        ((score_model(), PLAIN, PredictorCorrector(grid=UniformGrid())), "its sampler"),
        ((bridge(Noise()), REFLECT, PublishedBridge()), "the parameterization Noise"),
        ((bridge(Score(2.0)), REFLECT, PublishedBridge()), "the parameterization Score"),
        ((bridge(), PLAIN, PublishedBridge()), "padding 'reflect' instead of 'zero'"),
        ((bridge(eps=1e-6), REFLECT, PublishedBridge()), "its process; .* eps 1e-08 instead of 1e-06"),
        ((Denoiser(NCSNpp(**SIZE), VE(), X0()), REFLECT, Ancestral()), "the process VE"),
        ((Denoiser(NCSNpp(**SIZE, centered=False), OUVE(), X0()), REFLECT, Ancestral()), "Ancestral|centered"),
        (
            (Denoiser(NCSNpp(**SIZE, centered=False), OUVE(), X0()), REFLECT, PredictorCorrector()),
            "its network; .* centered True instead of False",
        ),
        (
            (Denoiser(DCUNet([(4, (4, 4), (2, 2), (1, 1))], "none"), OUVE(), Score(-1.0)), PLAIN, PredictorCorrector()),
            "an architecture of DCUNet without a name",
        ),
        ((storm(fourier_scale=8.0), PLAIN, NO_CORRECTOR), "its predictor; .* fourier_scale 16.0 instead of 8.0"),
        (
            (Denoiser(NCSNpp(**PREDICTOR), Prediction(), OneShot()), PLAIN, Ancestral(5)),
            "its sampler; .* --default_sampler leaves it out",
        ),
    ],
)
def test_what_the_layout_cannot_say(
    model: tuple[Denoiser, Any, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, published = stored(tmp_path / "own.safetensors", model), tmp_path / "published.ckpt"
    with pytest.raises(UserError, match=message):
        export(own, published, layout="published")
    capsys.readouterr()
    assert main(["speech", "export", str(own), "-o", str(published), "--layout", "published"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not published.exists()


def test_a_published_file_enhances_as_ours(tmp_path: Path) -> None:
    own = stored(tmp_path / "own.safetensors", MODELS["storm"])
    published = export(own, tmp_path / "published.ckpt", layout="published")
    back = import_checkpoint(published, tmp_path / "back.safetensors")
    wave = 0.1 * torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    results = [Enhancer(path, steps=2, device="cpu")(wave, 16000) for path in (own, back)]
    assert torch.equal(*results)


def test_files_that_are_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "published.ckpt")
    words = ["-o", target, "--layout", "published"]
    assert main(["speech", "export", str(TINY), *words]) == 2
    assert "no checkpoint of `ornstein speech fit`" in capsys.readouterr().err
    assert main(["speech", "export", str(tmp_path / "missing.safetensors"), *words]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err
    denoiser = describe(MODELS["ncsnpp"][0])
    for app, message in (("motion", "no checkpoint of `ornstein speech fit`"), ("speech", "make no network")):
        config = {
            "app": app,
            "denoiser": denoiser,
            "representation": describe(PLAIN),
            "sampler": describe(NO_CORRECTOR),
        }
        torch.save({"state_dict": {"denoiser.a": torch.ones(1)}, "ornstein": config}, tmp_path / "half.ckpt")
        assert main(["speech", "export", str(tmp_path / "half.ckpt"), *words, "--weights", "raw"]) == 2
        assert message in capsys.readouterr().err
    own = stored(tmp_path / "own.safetensors", MODELS["ncsnpp"])
    Path(target).write_text("precious")
    assert main(["speech", "export", str(own), *words]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert Path(target).read_text() == "precious"
