from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.errors import UserError
from ornstein_speech import audio, mixing
from ornstein_speech.datasets import FixedMixes, MixedOnTheFly, PairedFolder, item_generator, segment, voicebank_demand

DATA = Path(__file__).parents[3] / "data/speech"
TINY = DATA / "tiny"


def put(path: Path, frames: int = 50000, rate: int = 16000, channels: int = 1, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.3, 0.3, (frames, channels)), rate, subtype="FLOAT")


def pair(base: Path, name: str, frames: int = 50000, rate: int = 16000) -> None:
    put(base / "clean" / name, frames, rate)
    put(base / "noisy" / name, frames, rate, seed=1)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 3000),
    samples=st.integers(1, 2000),
    normalize=st.sampled_from(["noisy", "clean", "not"]),
    seed=st.integers(0, 99),
)
def test_segment(length: int, samples: int, normalize: str, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    clean, noisy = torch.randn(1, length, generator=g), torch.randn(1, length, generator=g)
    for start in (None, g):
        a, b = segment(clean, noisy, samples, start, normalize)  # type: ignore[arg-type]
        assert a.shape == b.shape == (1, samples)
        if normalize != "not":
            assert float((b if normalize == "noisy" else a).abs().max()) == 1.0
    a, b = segment(clean, noisy, samples, None, "not")
    if length >= samples:
        begin = (length - samples) // 2
        assert torch.equal(a, clean[:, begin : begin + samples])
    else:
        left = (samples - length) // 2
        assert torch.equal(b[:, left : left + length], noisy)
        assert a[:, :left].abs().sum() == 0
        assert a[:, left + length :].abs().sum() == 0


def test_segment_of_silence_and_explicit_start() -> None:
    zeros = torch.zeros(1, 100)
    assert torch.equal(segment(zeros, zeros, 50)[0], torch.zeros(1, 50))
    x = torch.arange(100.0)[None]
    assert segment(x, x, 10, 7, "not")[0][0, 0] == 7
    with pytest.raises(UserError, match="normalize"):
        segment(x, x, 10, 7, "peak")  # type: ignore[arg-type]


def test_paired_folder(tmp_path: Path) -> None:
    for name in ("a.wav", "b.flac", "speaker/a.wav"):
        pair(tmp_path / "train", name) if name.endswith("wav") else None
    data = PairedFolder(tmp_path, "train")
    assert data.names == ["a.wav", "speaker/a.wav"]
    first, again = data[0], data[0]
    assert first["clean"].shape == first["noisy"].shape == (1, 32640)
    assert first["noisy"].abs().max() == 1
    assert torch.equal(first["clean"], again["clean"])
    data.set_epoch(1)
    assert not torch.equal(first["clean"], data[0]["clean"])
    assert PairedFolder(tmp_path, "train", samples=None)[1]["clean"].shape == (1, 50000)
    centre = PairedFolder(tmp_path, "train", crop="centre", normalize="not")[0]["clean"]
    whole = PairedFolder(tmp_path, "train", samples=None)[0]["clean"]
    assert torch.equal(centre, whole[:, 8680 : 8680 + 32640])


def test_reverb_folders(tmp_path: Path) -> None:
    put(tmp_path / "anechoic/a.wav")
    put(tmp_path / "reverb/a.wav")
    assert len(PairedFolder(tmp_path, None)) == 1


def test_bad_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        PairedFolder(tmp_path, "train")
    pair(tmp_path, "a.wav")
    put(tmp_path / "noisy/b.wav")
    with pytest.raises(UserError, match=r"no partner.*b\.wav"):
        PairedFolder(tmp_path, None)
    put(tmp_path / "clean/b.wav", 49999)
    with pytest.raises(UserError, match=r"b\.wav has 49999 frames"):
        PairedFolder(tmp_path, None)
    put(tmp_path / "clean/b.wav", rate=8000)
    with pytest.raises(UserError, match="8000 Hz"):
        PairedFolder(tmp_path, None)
    pair(tmp_path, "b.wav", rate=48000)
    with pytest.raises(UserError, match="ornstein speech resample"):
        PairedFolder(tmp_path, None)
    assert PairedFolder(tmp_path, None, resample=True)[1]["clean"].shape == (1, 32640)
    put(tmp_path / "clean/b.wav", channels=2)
    put(tmp_path / "noisy/b.wav", channels=2)
    with pytest.raises(UserError, match="mono"):
        PairedFolder(tmp_path, None)


def test_voicebank(tmp_path: Path) -> None:
    for speaker in ("p226", "p227", "p287", "p300"):
        for side in ("clean", "noisy"):
            put(tmp_path / f"{side}_trainset_28spk_wav/{speaker}_001.wav", 40000)
    for side in ("clean", "noisy"):
        put(tmp_path / f"{side}_testset_wav/p232_001.wav", 41000)
    assert voicebank_demand(tmp_path, "train").names == ["p227_001.wav", "p300_001.wav"]
    valid = voicebank_demand(tmp_path, "valid")
    assert valid.names == ["p226_001.wav", "p287_001.wav"]
    assert valid.crop == "centre"
    assert voicebank_demand(tmp_path, "test")[0]["clean"].shape == (1, 41000)
    for side in ("clean", "noisy"):
        put(tmp_path / f"{side}_testset_wav/p232_001.wav", 41000, 48000)
    with pytest.raises(UserError, match="48000 Hz"):
        voicebank_demand(tmp_path, "test")
    assert voicebank_demand(tmp_path, "test", resample=True)[0]["clean"].shape == (1, 13667)


def test_shipped_pairs_are_valid() -> None:
    data = PairedFolder(DATA, None, samples=None)
    assert len(data) == 4
    for item in data:  # type: ignore[attr-defined]
        wanted = float(item["name"].rsplit("_", 1)[1].removesuffix("dB.flac"))
        assert float(mixing.snr(item["clean"], item["noisy"])) == pytest.approx(wanted, abs=0.05)


@pytest.fixture(scope="module")
def mixed() -> MixedOnTheFly:
    return MixedOnTheFly(TINY / "speech/train", TINY / "noise/train", length=40, seed=3)


def test_items_depend_on_seed_epoch_and_index_only(mixed: MixedOnTheFly) -> None:
    backwards = {i: mixed[i] for i in reversed(range(6))}
    other = MixedOnTheFly(TINY / "speech/train", TINY / "noise/train", length=40, seed=3)
    for i in range(6):
        assert torch.equal(other[i]["noisy"], backwards[i]["noisy"])
        assert other[i]["name"] == backwards[i]["name"]
        assert other[i]["noisy"].shape == (1, 32640)
        assert other[i]["noisy"].dtype == torch.float32
        assert other[i]["noisy"].abs().max() == 1
    other.set_epoch(1)
    assert all(not torch.equal(other[i]["noisy"], backwards[i]["noisy"]) for i in range(6))
    other.set_epoch(0)
    assert torch.equal(other[2]["noisy"], backwards[2]["noisy"])
    reseeded = MixedOnTheFly(TINY / "speech/train", TINY / "noise/train", length=40, seed=4)
    assert not torch.equal(reseeded[0]["noisy"], backwards[0]["noisy"])
    assert item_generator(0, 1, 11).initial_seed() != item_generator(0, 11, 1).initial_seed()


def test_worker_processes_change_nothing(mixed: MixedOnTheFly) -> None:
    loader = torch.utils.data.DataLoader(mixed, batch_size=4, num_workers=2)
    batch = next(iter(loader))
    assert torch.equal(batch["noisy"], torch.stack([mixed[i]["noisy"] for i in range(4)]))
    assert batch["noisy"].shape == (4, 1, 32640)


def test_snr_and_kinds_are_drawn_from_the_range() -> None:
    data = MixedOnTheFly(
        TINY / "speech/train", TINY / "noise/train", length=60, snr_range=(0, 15), seconds=2.04, normalize="not"
    )
    snrs, kinds = [], set()
    for item in data:  # type: ignore[attr-defined]
        if item["clean"].shape[-1] == data.frames:
            snrs.append(float(mixing.snr(item["clean"], item["noisy"])))
        kinds.add(item["name"].split("-")[-2])
        level = 10 * float(mixing.power(item["noisy"]).log10())
        assert -35.1 < level < -14.9
    assert -0.01 <= min(snrs) < 4
    assert 11 < max(snrs) <= 15.01
    assert kinds == {"babble", "music", "effects", "coloured"}


def test_fixed_mixes() -> None:
    data = FixedMixes(TINY / "speech/test", TINY / "noise/test", length=48, seconds=1.0)
    conditions = [data.condition(i) for i in range(48)]
    assert len(set(conditions)) == 48  # 2 voices, 6 noises, 4 SNRs: every combination once
    item = data[5]
    assert item["clean"].shape == (1, 16000)
    assert item["noisy"].abs().max() <= 0.951
    for i in range(0, 48, 5):
        assert float(mixing.snr(data[i]["clean"], data[i]["noisy"])) == pytest.approx(conditions[i][2], abs=1e-3)
    again = FixedMixes(TINY / "speech/test", TINY / "noise/test", length=48, seconds=1.0)
    assert torch.equal(again[5]["noisy"], item["noisy"])
    cut = FixedMixes(TINY / "speech/test", TINY / "noise/test", length=2, samples=8000)[1]
    assert cut["noisy"].shape == (1, 8000)
    assert cut["noisy"].abs().max() == 1


FIXED = {  # of a 4 s mix of seed 0: name, mean squares of clean and noisy, samples 10000, 28000, 46000 of noisy
    0: ("000-en-babble-0dB", 1.85719868e-02, 3.70705540e-02, [0.104996, 0.3256892, 0.2300107]),
    4: ("004-it-effects-0dB", 6.92586939e-03, 1.38056831e-02, [-0.0027971, 0.041379, 0.0713473]),
    8: ("008-en-music-0dB", 1.74098423e-02, 3.52611929e-02, [-0.0770785, 0.4301887, -0.1742606]),
    12: ("012-it-white-0dB", 1.50999810e-02, 3.01038432e-02, [-0.0493985, -0.0258791, 0.0427427]),
    16: ("016-en-pink-0dB", 1.66665097e-02, 3.32359031e-02, [-0.1668669, -0.4410758, -0.0883635]),
    20: ("020-it-brown-0dB", 1.86387741e-02, 3.73993732e-02, [0.1239617, -0.0324629, 0.0083078]),
}


@pytest.mark.parametrize("index", FIXED)
def test_fixed_mixes_are_the_published_ones(index: int) -> None:
    # Tables of results were measured on these mixes: whoever changes them has to measure anew.
    name, clean_power, noisy_power, samples = FIXED[index]
    item = FixedMixes(TINY / "speech/test", TINY / "noise/test", length=24)[index]
    assert item["name"] == name
    assert float(mixing.power(item["clean"])) == pytest.approx(clean_power, rel=1e-5)
    assert float(mixing.power(item["noisy"])) == pytest.approx(noisy_power, rel=1e-5)
    assert item["noisy"][0, 10000::18000].tolist() == pytest.approx(samples, abs=1e-6)


def test_snr_holds_for_the_joined_item() -> None:
    whole = MixedOnTheFly(TINY / "speech/train", TINY / "noise/train", length=8, samples=64000)
    part = MixedOnTheFly(TINY / "speech/train", TINY / "noise/train", length=8)
    for i in range(8):
        item, cut = whole[i], part[i]
        assert float(mixing.snr(item["clean"], item["noisy"])) == pytest.approx(
            float(item["name"].split("-")[-1][:-2]), abs=0.06
        )
        # The cut is a piece of the same mix, divided by its own peak.
        ratio = float((cut["noisy"] - cut["clean"]).norm() / cut["clean"].norm())
        windows = [
            float((item["noisy"] - item["clean"])[0, s : s + 32640].norm() / item["clean"][0, s : s + 32640].norm())
            for s in range(0, 64000 - 32640, 40)
        ]
        assert min(abs(w / ratio - 1) for w in windows) < 5e-3


def test_only_the_cut_of_a_long_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.wav", "b.wav", "short.wav"):
        pair(tmp_path, name, 3000 if name == "short.wav" else 200000)
    for side in ("clean", "noisy"):  # libsndfile has no FLOAT in FLAC
        samples, _ = audio.read(tmp_path / side / "b.wav")
        audio.write(tmp_path / side / "b.flac", samples, 16000)
        (tmp_path / side / "b.wav").unlink()
    data = PairedFolder(tmp_path, None, samples=8000, seed=5)
    whole = PairedFolder(tmp_path, None, samples=None)
    for i in range(3):
        expected = segment(whole[i]["clean"], whole[i]["noisy"], 8000, item_generator(5, 0, i))
        assert torch.equal(data[i]["clean"], expected[0])
        assert torch.equal(data[i]["noisy"], expected[1])
    read, frames = audio.read, []

    def counted(*args: object, **options: object) -> object:
        result = read(*args, **options)  # type: ignore[arg-type]
        frames.append(result[0].shape[1])
        return result

    monkeypatch.setattr(audio, "read", counted)
    data[0], data[2]
    assert frames == [8000, 8000, 3000, 3000]


def test_bad_options() -> None:
    speech, noise = TINY / "speech/train", TINY / "noise/train"
    with pytest.raises(UserError, match="no noise of kind"):
        MixedOnTheFly(speech, noise, noises={"rain": 1.0})
    with pytest.raises(UserError, match="ascending"):
        MixedOnTheFly(speech, noise, snr_range=(5, 0))
    with pytest.raises(UserError, match="no folder"):
        MixedOnTheFly(speech / "nowhere", noise)
