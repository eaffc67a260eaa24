import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ornstein.cli.command import main
from ornstein.errors import UserError
from ornstein_speech import audio, ears, mixing, wsj0
from ornstein_speech.corpora import prepare_corpus
from ornstein_speech.datasets import PairedFolder
from ornstein_speech.pairs import Job

DATA = Path(__file__).parents[3] / "data/speech"
CLIPS = sorted((DATA / "clips").glob("speech_*.flac"))


def put(path: Path, samples: np.ndarray, rate: int, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)


def speech(number: int, rate: int = 16000, seconds: float | None = None) -> np.ndarray:
    samples = audio.read(CLIPS[number % len(CLIPS)], rate)[0][0]
    return samples if seconds is None else np.resize(samples, round(seconds * rate))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny trees with the names of the real corpora and real clips in them."""
    root = tmp_path_factory.mktemp("corpora")
    wsj = root / "wsj0/11-1.1/wsj0"
    for number, name in enumerate(("si_tr_s/011/011c0201", "si_tr_s/012/012c0201", "si_dt_05/050/050c0101")):
        put(wsj / f"{name}.wav", speech(number), 16000)
    put(wsj / "si_et_05/440/440c0201.wv1", speech(3), 16000, format="NIST", subtype="PCM_16")
    put(wsj / "si_tr_s/011/011c0201.wv1", speech(3), 16000, format="NIST", subtype="PCM_16")  # the .wav goes before
    put(wsj / "si_tr_s/011/011c0201.wv2", speech(3), 16000, format="NIST", subtype="PCM_16")  # the other microphone
    backgrounds = root / "chime3/data/audio/16kHz/backgrounds"
    for place in ("CAF", "STR"):
        for channel in (1, 2):
            noise = mixing.coloured_noise(160000, torch.Generator().manual_seed(channel), 1.0).numpy() * 0.05
            put(backgrounds / f"BGD_150203_010_{place}.CH{channel}.wav", noise, 16000)
    for speaker, name, seconds in (
        ("p001", "emo_anger_freeform", 4.5),
        ("p001", "nonverbal_cough", 5.0),
        ("p002", "sentences_01_regular", 3.5),
        ("p100", "rainbow_01_fast", 4.2),
        ("p102", "emo_anger_sentences", 4.2),
        ("p103", "sentences_02_whisper", 4.2),
    ):
        put(root / f"ears/{speaker}/{name}.wav", speech(1, 48000, seconds), 48000)
    rows = ["Filename,Seconds,WHAM! Split"]
    for split in ("Train", "Valid", "Test"):
        noise = np.random.default_rng(len(split)).normal(0, 0.05, (48000 * 6, 2))
        put(root / f"wham/high_res_wham/audio/{split}.wav", noise, 48000)
        rows.append(f"{split}.wav,6.0,{split}")
    (root / "wham/high_res_wham/high_res_metadata.csv").write_text("\n".join(rows) + "\n")
    decay = np.random.default_rng(0).normal(0, 0.08, (16000, 2)) * np.exp(-np.arange(16000) / 3000)[:, None]
    decay[:200] *= 0.01
    decay[200] = 4.0  # the direct sound, after some delay
    for name, rate in (("ARNI/a.wav", 44100), ("AIR/b.wav", 48000), ("ACE-Challenge/x/Lobby_RIR.wav", 48000)):
        put(root / "rirs" / name, decay / 5, rate)
    put(root / "rirs/ACE-Challenge/x/Lobby_noise.wav", decay / 5, 48000)
    return root


def test_wsj0_chime3(parts: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    arguments = {"wsj0": parts / "wsj0", "chime3": parts / "chime3", "workers": 0, "quiet": True}
    manifest = prepare_corpus("wsj0-chime3", target, **arguments)
    assert sorted(manifest["files"]) == [
        "test/440c0201.wav",
        "train/011c0201.wav",
        "train/012c0201.wav",
        "valid/050c0101.wav",
    ]
    for name, entry in manifest["files"].items():
        split, file = name.split("/")
        clean, noisy = (audio.read(target / split / side / file)[0][0] for side in ("clean", "noisy"))
        source = audio.read(parts / "wsj0" / entry["speech"])[0][0]
        assert np.array_equal(clean, source)  # the level is not changed
        assert 0 <= entry["snr_db"] <= 20
        pair = torch.from_numpy(clean), torch.from_numpy(noisy)
        assert float(mixing.snr(*pair)) == pytest.approx(entry["snr_db"], abs=1e-3)
        assert entry["noise"].endswith(".CH1.wav")
        begin = entry["noise_start"]
        noise = audio.read(parts / "chime3" / entry["noise"], start=begin, frames=len(clean))[0][0]
        assert np.corrcoef(noisy - clean, noise)[0, 1] == pytest.approx(1, abs=1e-5)
    assert len({entry["snr_db"] for entry in manifest["files"].values()}) == 4
    assert manifest["seed"] == 0
    for split, count in (("train", 2), ("valid", 1), ("test", 1)):
        assert len(PairedFolder(target, split)) == count
    assert prepare_corpus("wsj0-chime3", tmp_path / "again", **arguments) == manifest
    other = prepare_corpus("wsj0-chime3", tmp_path / "other", seed=1, **arguments)
    assert other["files"]["train/011c0201.wav"]["snr_db"] != manifest["files"]["train/011c0201.wav"]["snr_db"]


def test_a_pair_does_not_depend_on_the_others(parts: Path, tmp_path: Path) -> None:
    arguments = {"chime3": parts / "chime3", "workers": 0, "quiet": True}
    whole = prepare_corpus("wsj0-chime3", tmp_path / "whole", wsj0=parts / "wsj0", **arguments)
    shutil.copytree(parts / "wsj0", tmp_path / "less")
    (tmp_path / "less/11-1.1/wsj0/si_tr_s/011/011c0201.wav").unlink()
    (tmp_path / "less/11-1.1/wsj0/si_tr_s/011/011c0201.wv1").unlink()
    less = prepare_corpus("wsj0-chime3", tmp_path / "part", wsj0=tmp_path / "less", **arguments)
    assert less["files"] == {name: entry for name, entry in whole["files"].items() if "011c" not in name}


def test_changed_noises_are_noticed(parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "chime3", tmp_path / "chime3")
    shutil.copytree(parts / "wsj0", tmp_path / "wsj0")
    bad = next((tmp_path / "wsj0").rglob("012c0201.wav"))
    good = bad.read_bytes()
    bad.write_bytes(b"")
    arguments = {"wsj0": tmp_path / "wsj0", "chime3": tmp_path / "chime3", "workers": 0, "quiet": True}
    with pytest.raises(UserError, match="gave no pair"):
        prepare_corpus("wsj0-chime3", tmp_path / "set", **arguments)
    gone = next((tmp_path / "chime3").rglob("*CAF.CH1.wav"))
    gone.rename(tmp_path / "kept.wav")
    bad.write_bytes(good)
    with pytest.raises(UserError, match="from other files"):  # of a stopped run
        prepare_corpus("wsj0-chime3", tmp_path / "set", **arguments)
    (tmp_path / "kept.wav").rename(gone)
    prepare_corpus("wsj0-chime3", tmp_path / "set", **arguments)
    gone.unlink()
    with pytest.raises(UserError, match="from other files"):  # of a finished one
        prepare_corpus("wsj0-chime3", tmp_path / "set", **arguments)
    made = prepare_corpus("wsj0-chime3", tmp_path / "set", overwrite=True, **arguments)
    assert {entry["noise"][-11:] for entry in made["files"].values()} == {"STR.CH1.wav"}


def test_wsj0_reverb(parts: Path, tmp_path: Path) -> None:
    manifest = prepare_corpus("wsj0-reverb", tmp_path / "set", wsj0=parts / "wsj0", workers=0, quiet=True)
    assert len(manifest["files"]) == 4
    assert manifest["folders"] == ["anechoic", "reverb"]
    for name, entry in manifest["files"].items():
        split, file = name.split("/")
        assert 0.4 <= entry["t60"] <= 1.0
        reverb = audio.read(tmp_path / "set" / split / "reverb" / file)[0]
        assert np.abs(reverb).max() == pytest.approx(0.9, abs=1e-6)
    assert len(PairedFolder(tmp_path / "set", "train")) == 2


def test_what_is_missing_is_said(parts: Path, tmp_path: Path) -> None:
    out, chime3 = tmp_path / "out", parts / "chime3"
    with pytest.raises(UserError, match="made of --wsj0 and --chime3; --chime3 is missing"):
        prepare_corpus("wsj0-chime3", out, wsj0=parts / "wsj0")
    with pytest.raises(UserError, match=r"no folder .*nowhere.*si_tr_s,si_dt_05"):
        prepare_corpus("wsj0-chime3", out, wsj0=tmp_path / "nowhere", chime3=chime3)
    with pytest.raises(UserError, match=r"no recordings in si_tr_s; expected:.*si_et_05"):
        prepare_corpus("wsj0-chime3", out, wsj0=parts / "chime3", chime3=chime3)
    with pytest.raises(UserError, match=r"no background noise; expected:.*backgrounds"):
        prepare_corpus("wsj0-chime3", out, wsj0=parts / "wsj0", chime3=parts / "wsj0")
    with pytest.raises(UserError, match=r"high_res_metadata\.csv.*WHAM! Split"):
        prepare_corpus("ears-wham", out, ears=parts / "ears", wham=parts / "rirs")
    with pytest.raises(UserError, match=r"no impulse responses for train.*ARNI"):
        prepare_corpus("ears-reverb", out, ears=parts / "ears", rirs=parts / "wham")
    with pytest.raises(UserError, match=r"no recordings of p001 to p099; expected:.*EARS/p001"):
        prepare_corpus("ears-wham", out, ears=parts / "rirs", wham=parts / "wham")
    with pytest.raises(UserError, match="use one of wsj0-chime3"):
        prepare_corpus("timit", out)  # type: ignore[arg-type]
    assert not out.exists()


def test_compressed_sphere_files_say_how_to_convert(parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "wsj0", tmp_path / "wsj0")
    head = b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    next((tmp_path / "wsj0").rglob("440c0201.wv1")).write_bytes(head.ljust(1024) + bytes(4000))
    with pytest.raises(UserError, match="sph2pipe -f wav"):
        prepare_corpus("wsj0-reverb", tmp_path / "out", wsj0=tmp_path / "wsj0")


def test_other_rates_are_refused_and_the_rest_is_made(parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "wsj0", tmp_path / "wsj0")
    bad = next((tmp_path / "wsj0").rglob("012c0201.wav"))
    good = bad.read_bytes()
    put(bad, speech(0, 8000), 8000)
    arguments = {"wsj0": tmp_path / "wsj0", "chime3": parts / "chime3", "workers": 0, "quiet": True}
    with pytest.raises(UserError, match=r"1 of 4 recordings gave no pair.*012c0201\.wav has 8000 Hz"):
        prepare_corpus("wsj0-chime3", tmp_path / "out", **arguments)
    done = tmp_path / "out/train/noisy/011c0201.wav"
    stamp = done.stat().st_mtime_ns
    bad.write_bytes(good)
    manifest = prepare_corpus("wsj0-chime3", tmp_path / "out", **arguments)
    assert len(manifest["files"]) == 4
    assert done.stat().st_mtime_ns == stamp


def test_ears_wham(parts: Path, tmp_path: Path) -> None:
    arguments = {"ears": parts / "ears", "wham": parts / "wham", "workers": 0, "quiet": True}
    manifest = prepare_corpus("ears-wham", tmp_path / "set", **arguments)
    # Coughs, and recordings below 4 s, are left out.
    assert sorted(manifest["files"]) == [
        "test/p102/emo_anger_sentences_00.wav",
        "test/p103/sentences_02_whisper_00.wav",
        "train/p001/emo_anger_freeform_00.wav",
        "valid/p100/rainbow_01_fast_00.wav",
    ]
    for name, entry in manifest["files"].items():
        split, _, file = name.partition("/")
        clean, noisy = (audio.read(tmp_path / "set" / split / side / file) for side in ("clean", "noisy"))
        assert clean[1] == 48000
        assert np.abs(noisy[0]).max() < 1
        assert entry["snr_db"] >= -2.5
        assert entry["noise"] == f"high_res_wham/audio/{split.capitalize()}.wav"
        level = ears.loudness(torch.from_numpy(clean[0][0]))
        noise = ears.loudness(torch.from_numpy(noisy[0][0] - clean[0][0]))
        assert level - noise == pytest.approx(entry["snr_db"], abs=0.1)


def test_ears_reverb(parts: Path, tmp_path: Path) -> None:
    manifest = prepare_corpus(
        "ears-reverb", tmp_path / "set", ears=parts / "ears", rirs=parts / "rirs", workers=0, quiet=True
    )
    assert len(manifest["files"]) == 4
    for name, entry in manifest["files"].items():
        split, _, file = name.partition("/")
        clean, reverb = (audio.read(tmp_path / "set" / split / side / file)[0][0] for side in ("anechoic", "reverb"))
        assert len(clean) == len(reverb)
        lag = int(np.correlate(reverb[20000:60000], clean[21000:59000], "valid").argmax()) - 1000
        assert abs(lag) <= 3  # the delay of 200 samples before the direct sound is cut off
        loud = [ears.loudness(torch.from_numpy(signal)) for signal in (clean, reverb)]
        assert loud[0] - loud[1] == pytest.approx(0, abs=0.1)
        assert entry["t60_measured"] == pytest.approx(6.9 * 3000 / (48000 if split != "train" else 44100), rel=0.25)
        assert "noise" not in entry["response"]


def test_test_cuts_of_ears(parts: Path, tmp_path: Path) -> None:
    cuts = tmp_path / "test_files.json"
    cuts.write_text(json.dumps({"p102": {"emo_anger_sentences": [[0, 48000], [48000, -1]]}}))
    manifest = prepare_corpus(
        "ears-wham",
        tmp_path / "set",
        ears=parts / "ears",
        wham=parts / "wham",
        test_cuts=cuts,
        workers=0,
        quiet=True,
    )
    tested = {name: entry for name, entry in manifest["files"].items() if name.startswith("test")}
    assert list(tested) == ["test/p102/emo_anger_sentences_00.wav", "test/p102/emo_anger_sentences_01.wav"]
    assert [entry["start"] for entry in tested.values()] == [0, 48000]
    low, width = -2.5, 20 / 12
    for number, entry in enumerate(tested.values()):  # a style goes through the parts of the range
        above = entry["snr_db"] - low - number * width
        assert any(-0.05 <= above - raised <= width + 0.05 for raised in range(10))  # 1 dB more while the sum clips
    cuts.write_text(json.dumps({"p102": {"emo_anger_sentences": [[0, 48000], [48000, 96000]]}}))
    with pytest.raises(UserError, match="from other files"):
        prepare_corpus(
            "ears-wham", tmp_path / "set", ears=parts / "ears", wham=parts / "wham", test_cuts=cuts, quiet=True
        )
    clean = audio.read(tmp_path / "set/test/clean/p102/emo_anger_sentences_00.wav")[0][0]
    assert clean[0] == 0
    assert clean[-1] == 0
    cuts.write_text(json.dumps({"p102": {"emo_joy": [[0, 1]]}}))
    with pytest.raises(UserError, match=r"lacks 1 recordings.*emo_joy"):
        ears.ears_jobs(parts / "ears", 0, cuts)
    cuts.write_text("[1, 2]")
    with pytest.raises(UserError, match="does not say where"):
        ears.ears_jobs(parts / "ears", 0, cuts)


def test_long_recordings_are_cut_and_silence_is_left_out(parts: Path, tmp_path: Path) -> None:
    samples = np.zeros(48000 * 25)
    samples[: 48000 * 11] = speech(0, 48000, 11.0)
    put(tmp_path / "p001/emo_pain_freeform.wav", samples, 48000)
    noise = np.random.default_rng(0).normal(0, 0.05, 48000 * 30)
    put(tmp_path / "n.wav", noise, 48000)
    recipe = ears.WhamRecipe({"train": [(tmp_path / "n.wav", len(noise))]}, tmp_path)
    job = Job("train", "p001/emo_pain_freeform", 3, (tmp_path / "p001/emo_pain_freeform.wav",))
    pairs = recipe(job)
    # 0-10, 10-20 and the rest of at least 4 s; the last is silent.
    assert [pair.part for pair in pairs] == ["_00", "_01"]
    assert [pair.facts["start"] for pair in pairs] == [0, 480000]
    assert all(len(pair.clean) == 480000 for pair in pairs)


@pytest.mark.parametrize(
    ("stem", "style"),
    [
        ("emo_anger_freeform", "anger"),
        ("sentences_01_whisper", "whisper"),
        ("rainbow_05_fast", "fast"),
        ("freeform_speech_01", ""),
    ],
)
def test_style(stem: str, style: str) -> None:
    assert ears.style_of(stem) == style


def test_several_processes_change_nothing(parts: Path, tmp_path: Path) -> None:
    jobs = wsj0.wsj0_jobs(parts / "wsj0", 0)
    assert len({job.seed for job in jobs}) == len(jobs)
    words = ["speech", "prepare-corpus", "wsj0-chime3", str(tmp_path / "one"), "--quiet", "--workers", "1"]
    words += ["--wsj0", str(parts / "wsj0"), "--chime3", str(parts / "chime3")]
    assert main(words) == 0
    alone = prepare_corpus(
        "wsj0-chime3", tmp_path / "two", wsj0=parts / "wsj0", chime3=parts / "chime3", workers=0, quiet=True
    )
    assert json.loads((tmp_path / "one/manifest.json").read_text()) == alone
