"""SpeechData: the loaders of the three layouts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ornstein.cli import main
from ornstein.errors import UserError
from ornstein_speech import audio
from ornstein_speech.data import SpeechData

DATA = Path(__file__).parents[3] / "data/speech"


@pytest.fixture(scope="module")
def speech() -> np.ndarray[Any, Any]:
    """5 s of a reading at 16 kHz."""
    wave, _ = audio.read(DATA / "clips/speech_librivox.flac", 16000)
    return wave[0]


def put(path: Path, wave: np.ndarray[Any, Any], rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="FLOAT")


def put_pair(folder: Path, sides: tuple[str, str], name: str, wave: np.ndarray[Any, Any], rate: int = 16000) -> None:
    noise = np.random.default_rng(len(name)).normal(0, 0.01, len(wave)).astype(np.float32)
    put(folder / sides[0] / name, wave, rate)
    put(folder / sides[1] / name, wave + noise, rate)


@pytest.fixture
def pairs(tmp_path: Path, speech: np.ndarray[Any, Any]) -> Path:
    """ROOT/{train,valid,test}/{clean,noisy} with files of different lengths."""
    for split, count in (("train", 3), ("valid", 2), ("test", 5)):
        for i in range(count):
            put_pair(tmp_path / split, ("clean", "noisy"), f"{i}.wav", speech[: 12000 + 4000 * i])
    return tmp_path


@pytest.fixture
def voicebank(tmp_path: Path, speech: np.ndarray[Any, Any]) -> Path:
    """VoiceBank-DEMAND as distributed, at 48 kHz."""
    wide = audio.resample(speech[None, :20000], 16000, 48000)[0]
    train, test = (tuple(f"{side}_{part}_wav" for side in ("clean", "noisy")) for part in ("trainset_28spk", "testset"))
    for speaker in ("p226", "p227", "p287", "p300"):
        for i in range(2):
            put_pair(tmp_path, train, f"{speaker}_{i:03d}.wav", wide, 48000)  # type: ignore[arg-type]
    put_pair(tmp_path, test, "p232_001.wav", wide[:48000], 48000)  # type: ignore[arg-type]
    return tmp_path


def test_mixes() -> None:
    data = SpeechData(DATA / "tiny", batch_size=3, samples=3968, epoch_length=7, valid_files=5, num_workers=0)
    train = data.train_dataloader()
    assert len(train) == 2
    batch = next(iter(train))
    assert batch["clean"].shape == batch["noisy"].shape == (3, 1, 3968)
    assert torch.equal(batch["noisy"].abs().amax((1, 2)), torch.ones(3))
    valid = [b["noisy"].shape for b in data.val_dataloader()]
    assert valid == [(5, 1, 64000)]
    names = [name for b in data.val_dataloader() for name in b["name"]]
    assert [name.rsplit("-", 1)[1] for name in names] == ["0dB", "5dB", "10dB", "15dB", "0dB"]
    assert len(data.test_dataloader()) == len(data.predict_dataloader()) == 6  # 48 mixes, 8 at once


def test_mixes_change_with_the_epoch_and_repeat_with_the_seed() -> None:
    def epoch(number: int, seed: int) -> torch.Tensor:
        data = SpeechData(DATA / "tiny", batch_size=2, samples=3968, epoch_length=2, num_workers=0, seed=seed)
        loader = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(number)
        batch = next(iter(loader))
        return torch.as_tensor(batch["noisy"][batch["index"].argsort()])

    first = epoch(0, 0)
    assert torch.equal(first, epoch(0, 0))
    assert not torch.equal(first, epoch(1, 0))
    assert not torch.equal(first, epoch(0, 1))


def test_pairs(pairs: Path) -> None:
    data = SpeechData(pairs, "pairs", batch_size=3, samples=16384, normalize="clean", test_files=2, num_workers=0)
    (batch,) = data.train_dataloader()
    assert batch["clean"].shape == (3, 1, 16384)  # the shortest is padded
    assert torch.equal(batch["clean"].abs().amax((1, 2)), torch.ones(3))
    assert [b["noisy"].shape for b in data.val_dataloader()] == [(1, 1, 12000), (1, 1, 16000)]
    assert [b["name"] for b in data.test_dataloader()] == [["0.wav"], ["2.wav"]]  # spread over all five


def test_anechoic_and_reverb(tmp_path: Path, speech: np.ndarray[Any, Any]) -> None:
    put_pair(tmp_path / "valid", ("anechoic", "reverb"), "a.wav", speech[:9000])
    (batch,) = SpeechData(tmp_path, "pairs").val_dataloader()
    assert batch["clean"].shape == (1, 1, 9000)


def test_voicebank(voicebank: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The 48 kHz files are refused, converted while loading, or converted once by `resample`."""
    with pytest.raises(UserError, match=r"48000 Hz, not 16000; .*ornstein speech resample"):
        SpeechData(voicebank, "voicebank").train_dataloader()

    def check(data: SpeechData) -> torch.Tensor:
        (batch,) = data.train_dataloader()
        assert batch["clean"].shape == (4, 1, 3968)
        assert {name[:4] for name in batch["name"]} == {"p227", "p300"}
        valid = list(data.val_dataloader())
        assert [b["name"][0][:4] for b in valid] == ["p226", "p287"]  # two of four, of both speakers
        assert valid[0]["noisy"].shape == (1, 1, 20000)
        (test,) = data.test_dataloader()
        assert test["name"] == ["p232_001.wav"]
        return torch.as_tensor(test["clean"])

    options: dict[str, Any] = {"batch_size": 4, "samples": 3968, "valid_files": 2, "num_workers": 0}
    loaded = check(SpeechData(voicebank, "voicebank", resample=True, **options))
    target = tmp_path_factory.mktemp("converted") / "voicebank"
    assert main(["speech", "resample", str(voicebank), str(target), "--rate", "16000", "--quiet"]) == 0
    converted = check(SpeechData(target, "voicebank", **options))
    assert torch.allclose(loaded, converted, atol=2**-15)  # 16-bit files


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"root": "none"}, "there is no folder none; make it with `ornstein speech prepare`"),
        ({"root": "none", "layout": "voicebank"}, "there is no folder none"),
        ({"layout": "pairs"}, "no folder"),
        ({"layout": "voicebank"}, "no folder"),
        ({"batch_size": 100, "epoch_length": 50}, "50 items do not fill one batch of 100"),
        ({"epoch_length": 0}, "epoch_length must be at least 1"),
        ({"snr_range": (10.0, 0.0)}, "give ascending dB"),
        ({"valid_files": 0}, "valid_files, test_files and eval_batch_size must be at least 1"),
    ],
)
def test_mistakes(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        len(SpeechData(**({"root": DATA / "tiny", "num_workers": 0} | options)).train_dataloader())


def test_missing_root_is_named_for_every_loader() -> None:
    for layout in ("mixes", "pairs", "voicebank"):
        data = SpeechData(Path("none"), layout)  # type: ignore[arg-type]
        for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader, data.predict_dataloader):
            with pytest.raises(UserError, match="there is no folder none"):
                loader()


def test_mixes_with_a_broken_recording(tmp_path: Path, speech: np.ndarray[Any, Any]) -> None:
    put(tmp_path / "speech/train/a/good.wav", speech)
    put(tmp_path / "noise/train/hum/bad.wav", np.full(8000, np.nan, np.float32))
    with pytest.raises(UserError, match=r"bad\.wav holds NaN"):
        SpeechData(tmp_path).train_dataloader()


@pytest.mark.parametrize("options", [{"num_workers": -1}, {"samples": 0}, {"snr_range": (-1e9, 1e9)}, {"rate": 1}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        SpeechData(DATA / "tiny", **options)
