import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ornstein.checkpoint import export, load, load_weights, save
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein.samplers.ancestral import Ancestral
from ornstein.training.task import Task


def make_denoiser(seed: int = 0) -> Denoiser:
    torch.manual_seed(seed)
    network = NCSNpp(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), image_size=16)
    with torch.no_grad():  # some weights start as good as zero
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return Denoiser(network, SchroedingerBridge(c=0.3), X0())


def output(denoiser: Denoiser) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 1, 16, 16, generator=generator, dtype=torch.complex64) for _ in range(2))
    with torch.no_grad():
        return denoiser.eval()(x, 0.5, y).x0


def metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["ornstein"])


def test_round_trip(tmp_path: Path) -> None:
    path, denoiser = tmp_path / "a.safetensors", make_denoiser()
    save(path, denoiser, app="core", sampler=Ancestral(steps=7, eta=0.0), representation=X0(), info={"step": 3})
    generator = torch.get_rng_state()
    found = load(path, "core")
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(output(found.denoiser), output(denoiser))
    assert found.denoiser.process == denoiser.process
    assert not found.denoiser.training
    assert found.sampler == Ancestral(steps=7, eta=0.0)
    assert found.representation == X0()
    assert found.info == {"step": 3}
    assert metadata(path)["format"] == 1
    assert metadata(path)["weights"] == "ema"


def test_file_does_not_depend_on_the_memory_format(tmp_path: Path) -> None:
    denoiser = make_denoiser()
    save(tmp_path / "a.safetensors", denoiser, app="core")
    denoiser.network.to(memory_format=torch.channels_last)
    save(tmp_path / "b.safetensors", denoiser, app="core")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_half_precision_storage_loads_as_float32(tmp_path: Path) -> None:
    denoiser = make_denoiser()
    save(tmp_path / "a.safetensors", denoiser, app="core")
    save(tmp_path / "b.safetensors", denoiser, app="core", dtype=torch.float16)
    assert (tmp_path / "b.safetensors").stat().st_size < 0.7 * (tmp_path / "a.safetensors").stat().st_size
    found = load(tmp_path / "b.safetensors").denoiser
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    torch.testing.assert_close(output(found), output(denoiser), rtol=2e-2, atol=2e-2)


def test_saving_loses_nothing(tmp_path: Path) -> None:
    path, denoiser = tmp_path / "a.safetensors", make_denoiser()
    path.write_text("precious")
    with pytest.raises(UserError, match="exists"):
        save(path, denoiser, app="core")
    with torch.no_grad():
        next(denoiser.parameters()).fill_(1e6)
    with pytest.raises(UserError, match=r"not finite in float16; store it in float32"):
        save(path, denoiser, app="core", dtype=torch.float16, overwrite=True)
    with torch.no_grad():
        next(denoiser.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="earlier checkpoint"):
        save(path, denoiser, app="core", overwrite=True)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def edited(tmp_path: Path, config: dict[str, Any] | None = None, **tensors: torch.Tensor | None) -> Path:
    """A saved checkpoint with other metadata entries or tensors; None removes a tensor."""
    path = tmp_path / "a.safetensors"
    save(path, make_denoiser(), app="core", overwrite=True)
    state: dict[str, Any] = load_file(path) | tensors
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(state, path, metadata={"ornstein": json.dumps(metadata(path) | (config or {}))})
    return path


def refusal(path: Path, app: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load(path, app)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert "there is no checkpoint" in refusal(path)
    for content in (b"", b"hello", bytes(100), (9**9).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        assert "is damaged: it is no safetensors file inside; copy it again" in refusal(path, "speech")
    trained, sound = path.with_suffix(".ckpt"), path.with_suffix(".wav")
    for other in (trained, sound):
        other.write_bytes(b"RIFF")
    assert "no safetensors file; `ornstein speech export` converts the .ckpt files of fit" in refusal(trained, "speech")
    assert "is no checkpoint; give a .safetensors file" in refusal(sound)
    assert "is a folder; give the .safetensors file" in refusal(tmp_path)
    save_file({"w": torch.ones(1)}, path)
    assert "`ornstein speech import` converts published checkpoints" in refusal(path, "speech")
    for text in ("[]", "3", "{}", '{"format": "x"}'):
        save_file({"w": torch.ones(1)}, path, metadata={"ornstein": text})
        assert "unreadable configuration" in refusal(path)
    save_file({"w": torch.ones(1)}, path, metadata={"ornstein": "{"})
    assert "damaged" in refusal(path)


def test_checkpoints_for_somebody_else(tmp_path: Path) -> None:
    assert "a checkpoint of core, not of speech" in refusal(edited(tmp_path), "speech")
    assert "newer ornstein (format 2, known is 1)" in refusal(edited(tmp_path, {"format": 2}))


@pytest.mark.parametrize(
    "spec",
    [None, 3, {"class_path": "os.system"}, {"class_path": "ornstein.samplers.ancestral.Ancestral"}],
    ids=str,
)
def test_specs_are_not_trusted(tmp_path: Path, spec: Any) -> None:
    refusal(edited(tmp_path, {"denoiser": spec}))


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    names = list(make_denoiser().state_dict())
    tensors = {names[0]: None, names[1]: torch.ones(7), "extra": torch.ones(1)}
    message = refusal(edited(tmp_path, **tensors))
    assert f"1 missing ({names[0]})" in message
    assert "1 unexpected (extra)" in message
    assert f"1 of the wrong shape ({names[1]} (7,) instead of" in message


def fitted(tmp_path: Path, **entries: Any) -> tuple[Path, Denoiser, Denoiser]:
    """A checkpoint laid out as `fit` writes it, with its raw and averaged denoisers."""
    from ornstein.config import describe

    raw, averaged = make_denoiser(1), make_denoiser(2)
    config = {"app": "core", "denoiser": describe(raw), "sampler": describe(Ancestral(3)), "representation": None}
    tensors = {f"denoiser.{name}": tensor for name, tensor in averaged.state_dict().items()}
    content = {
        "state_dict": {f"denoiser.{name}": tensor for name, tensor in raw.state_dict().items()},
        "callbacks": {"EMA": {"averages": {"power-0.1": {"updates": 3, "decay": 0.9, "tensors": tensors}}}},
        "ornstein": config,
        "epoch": 1,
        "global_step": 12,
    }
    torch.save(content | entries, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt", raw, averaged


def test_export(tmp_path: Path) -> None:
    source, raw, averaged = fitted(tmp_path)
    export(source, tmp_path / "ema.safetensors", note="ours")
    export(source, tmp_path / "raw.safetensors", weights="raw")
    found = load(tmp_path / "ema.safetensors", "core")
    assert torch.equal(output(found.denoiser), output(averaged))
    assert found.sampler == Ancestral(3)
    assert found.info == {"epoch": 1, "global_step": 12, "note": "ours"}
    assert torch.equal(output(load(tmp_path / "raw.safetensors").denoiser), output(raw))
    assert metadata(tmp_path / "raw.safetensors")["weights"] == "raw"


@pytest.mark.parametrize(
    ("entries", "options", "words"),
    [
        ({"ornstein": None}, {}, "does not come from `ornstein ... fit`"),
        ({"ornstein": {"app": "core", "problem": "Mine is no component"}}, {}, "Mine is no component"),
        ({"callbacks": {}}, {}, "no averaged weights"),
        ({}, {"average": "power-0.2"}, r"no average power-0\.2; it has power-0\.1"),
    ],
    ids=str,
)
def test_what_cannot_be_exported(tmp_path: Path, entries: Any, options: Any, words: str) -> None:
    source, _, _ = fitted(tmp_path, **entries)
    with pytest.raises(UserError, match=words):
        export(source, tmp_path / "b.safetensors", **options)
    assert not (tmp_path / "b.safetensors").exists()


def test_fit_writes_what_export_reads(tmp_path: Path) -> None:
    from lightning.pytorch import Trainer

    from ornstein.objectives.denoising import DenoisingObjective
    from ornstein.training.data import ResumableLoader
    from ornstein.training.ema import EMA
    from ornstein.training.task import Task

    denoiser, ema = make_denoiser(), EMA(decay=0.5)
    items = [{name: torch.randn(1, 16, 16, dtype=torch.complex64) for name in ("x0", "y")} for _ in range(4)]
    task = Task(denoiser, DenoisingObjective("x0"), Ancestral(steps=2), channels_last=True)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=2,
        callbacks=[ema],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, ResumableLoader(items, 2, train=True))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt is a checkpoint of core, not of speech; convert it with"):
        export(tmp_path / "a.ckpt", tmp_path / "a.safetensors", app="speech")
    export(tmp_path / "a.ckpt", tmp_path / "a.safetensors", app="core")
    found = load(tmp_path / "a.safetensors", "core")
    with ema.averaged(task):
        assert torch.allclose(output(found.denoiser), output(denoiser), atol=1e-6)
    assert not torch.allclose(output(found.denoiser), output(denoiser), atol=1e-6)
    assert found.info == {"epoch": trainer.current_epoch, "global_step": 2}


def test_training_can_begin_with_a_finished_model(tmp_path: Path) -> None:
    path, finished, fresh = tmp_path / "a.safetensors", make_denoiser(0), make_denoiser(1)
    save(path, finished, app="core")
    Task(fresh, DenoisingObjective(compare="x0"), Ancestral(), init_from=path).setup("fit")
    assert torch.equal(output(fresh), output(finished))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "a.safetensors", make_denoiser()
    save(
        path,
        Denoiser(NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=()), other.process, X0()),
        app="core",
    )
    with pytest.raises(UserError, match="does not fit the network of this run"):
        load_weights(path, other)
