"""Latents that are made once: what is in them, crops of them, interruption, and training on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ornstein import checkpoint, manifest
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.networks.vq import VQAutoencoder
from ornstein.objectives.outputs import OutputObjective
from ornstein.process.residual_shift import ResidualShift
from ornstein.published_shift import reconstruction
from ornstein.training.data import ResumableLoader
from ornstein_infrared import latents
from ornstein_infrared.latent_frames import LatentFrames
from ornstein_infrared.latents import encode, encoded
from ornstein_infrared.representation import ThermalSpace


@pytest.fixture(scope="module")
def network() -> VQAutoencoder:
    torch.manual_seed(0)
    return VQAutoencoder(1, 32, (1, 1, 1), num_res_blocks=1, n_embed=16).eval()


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory, network: VQAutoencoder) -> Path:
    path = tmp_path_factory.mktemp("vq") / "vq.safetensors"
    checkpoint.save(path, reconstruction(network), app="infrared")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames, 8 bits and 16 bits, whose sides 4 does not divide."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for i in range(5):
        levels = np.add.outer(np.linspace(0, 150, 34), np.linspace(0, 80, 41)) + rng.normal(0, 5, (34, 41))
        counts = levels.clip(0, 255).astype(np.uint8) if i else (7000 + 10 * levels).astype(np.uint16)
        Image.fromarray(counts).save(folder / f"{i}.png")
    return folder


def test_latents_are_those_of_the_frames(
    source: Path, autoencoder: Path, network: VQAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "SHARD", 2)
    folder = encode(source, tmp_path / "latents", autoencoder=autoencoder, device="cpu", quiet=True)
    assert manifest.verify(folder, "encode") == 3
    frames = LatentFrames(folder)
    assert [frames[i]["name"] for i in range(len(frames))] == list("01234")
    item = frames[3]
    assert item["measured"].shape == (1, 8, 10)
    assert item["x0"].shape == item["y"].shape == (3, 8, 10)
    # 8 bits: the small frame is Pillow's, and their range is that of the levels
    pixels = np.asarray(Image.open(source / "3.png"))[:32, :40]
    small = np.asarray(Image.fromarray(pixels).resize((10, 8), Image.Resampling.BICUBIC)).astype(np.float64)
    measured = torch.from_numpy(2 * small / 255 - 1).float()
    torch.testing.assert_close(item["measured"][0], measured)
    clean = torch.from_numpy(pixels / 255).float()[None, None]
    denoiser = LatentDenoiser(torch.nn.Identity(), ResidualShift(), network)
    torch.testing.assert_close(item["x0"][None], denoiser.latents(ThermalSpace().forward(clean)), rtol=1e-4, atol=1e-5)
    counts = frames[0]["measured"]  # 16 bits: the range is that of the small frame
    assert counts.min() < -0.99
    assert counts.max() > 0.99
    torch.testing.assert_close(item["y"][None], denoiser.observe(item["measured"][None])[0], rtol=1e-4, atol=1e-5)


def test_crops_are_the_same_places_of_all_three(source: Path, autoencoder: Path, tmp_path: Path) -> None:
    folder = encode(source, tmp_path / "latents", autoencoder=autoencoder, device="cpu", half=True, quiet=True)
    whole, crops = LatentFrames(folder), LatentFrames(folder, crop=4, length=50, seed=1)
    places = set()
    for index in range(50):
        item, frame = crops[index], whole[index % 5]
        found = [
            (top, left)
            for top in range(5)
            for left in range(7)
            if torch.equal(item["measured"], frame["measured"][:, top : top + 4, left : left + 4])
        ]
        ((top, left),) = found
        for name in ("x0", "y"):
            assert torch.equal(item[name], frame[name][:, top : top + 4, left : left + 4])
        places.add((top, left))
    assert len(places) > 15
    assert torch.equal(crops[7]["x0"], LatentFrames(folder, crop=4, length=50, seed=1)[7]["x0"])
    crops.set_epoch(1)
    assert not all(torch.equal(crops[i]["x0"], LatentFrames(folder, crop=4, seed=1)[i]["x0"]) for i in range(5))


def test_an_interrupted_run_goes_on(
    source: Path, autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "SHARD", 2)
    calls = []

    def counted(*arguments: object) -> dict[str, torch.Tensor]:
        calls.append(arguments[0])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encoded(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(latents, "encoded", counted)
    target = tmp_path / "latents"
    with pytest.raises(KeyboardInterrupt):
        encode(source, target, autoencoder=autoencoder, device="cpu", quiet=True)
    with pytest.raises(UserError, match=r"no .*manifest.json"):
        LatentFrames(target)
    encode(source, target, autoencoder=autoencoder, device="cpu", quiet=True)
    assert len(calls) == 4 + 3  # the first shard is there
    whole = encode(source, tmp_path / "once", autoencoder=autoencoder, device="cpu", quiet=True)
    for name in ("manifest.json", "shards/00000.safetensors", "shards/00002.safetensors"):
        assert (target / name).read_bytes() == (whole / name).read_bytes()
    count = len(calls)
    encode(source, target, autoencoder=autoencoder, device="cpu", quiet=True)
    assert len(calls) == count
    with pytest.raises(UserError, match="other options"):
        encode(source, target, autoencoder=autoencoder, scale=2, device="cpu", quiet=True)
    encode(source, target, autoencoder=autoencoder, scale=2, device="cpu", quiet=True, overwrite=True)
    assert LatentFrames(target).scale == 2


def test_a_denoiser_learns_on_them(source: Path, autoencoder: Path, network: VQAutoencoder, tmp_path: Path) -> None:
    class Shift(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(3, 1, 1))

        def forward(self, x: torch.Tensor, t: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
            assert measured.shape == (2, 1, 4, 4)
            return x + self.bias

    folder = encode(source, tmp_path / "latents", autoencoder=autoencoder, device="cpu", quiet=True)
    denoiser = LatentDenoiser(Shift(), ResidualShift(), network)
    batch = next(iter(ResumableLoader(LatentFrames(folder, crop=4), 2, train=True)))
    loss = OutputObjective()(
        denoiser.on_latents(), batch["x0"], batch["y"], generator=torch.Generator().manual_seed(0),
        measured=batch["measured"],
    )["loss"]  # fmt: skip
    loss.backward()
    assert denoiser.network.bias.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused(source: Path, autoencoder: Path, tmp_path: Path) -> None:
    folder = encode(source, tmp_path / "latents", autoencoder=autoencoder, scale=2, device="cpu", quiet=True)
    with pytest.raises(UserError, match="no whole latents"):
        LatentFrames(folder, crop=3)
    with pytest.raises(UserError, match="less than the crop"):
        LatentFrames(folder, crop=18)[0]
    (folder / "shards/00000.safetensors").write_bytes(b"0")
    with pytest.raises(UserError, match="damaged"):
        LatentFrames(folder)[0]
    with pytest.raises(UserError, match="--scale 0"):
        encode(source, folder, autoencoder=autoencoder, scale=0)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="no latents"):
        LatentFrames(tmp_path)
    with pytest.raises(UserError, match="no file or folder"):
        encode(tmp_path / "none", tmp_path / "out", autoencoder=autoencoder)
