"""Long recordings, stitched from the real ones: memory does not grow with the length, and joints cannot be found."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from ornstein import checkpoint
from ornstein.denoiser import Denoiser
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein.samplers.ancestral import Ancestral
from ornstein_speech import audio
from ornstein_speech.demo import recordings
from ornstein_speech.enhance import Enhancer
from ornstein_speech.representation import CompressedSpectrogram
from ornstein_speech.streaming import ChunkPlan

RATE = 16000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoint.save(
        path,
        Denoiser(NCSNpp(nf=4, ch_mult=(1,), num_res_blocks=1, attn_resolutions=()), SchroedingerBridge(), X0()),
        app="speech",
        representation=CompressedSpectrogram(n_fft=126, hop=64),
        sampler=Ancestral(steps=1, eta=0.0),
    )
    return path


def stitched(seconds: float, kind: str = "noisy") -> np.ndarray:
    """The recordings one after another, as often as needed."""
    clips = np.concatenate([audio.read(path)[0][0] for path in sorted((recordings() / kind).glob("*.flac"))])
    return np.resize(clips, int(seconds * RATE))


# The network, whose memory depends on the chunk alone, is left out, so that minutes of sound take a second.
CHILD = """
import resource, sys
from ornstein_speech.enhance import Enhancer, enhance
Enhancer._sample = lambda self, waves, *rest: waves
for source in sys.argv[2:]:
    enhance(source, source + ".wav", checkpoint=sys.argv[1], quiet=True, sample_rate=22050)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_length(tiny: Path, tmp_path: Path) -> None:
    for minutes in (2, 8):
        soundfile.write(tmp_path / f"{minutes}.flac", stitched(60 * minutes), RATE)
    files = [str(tmp_path / f"{minutes}.flac") for minutes in (2, 8)]
    child = subprocess.run([sys.executable, "-c", CHILD, str(tiny), *files], capture_output=True, text=True, check=True)
    short, long = (int(line) / 1024 for line in child.stdout.split())
    assert audio.info(f"{files[1]}.wav").frames == 8 * 60 * 22050
    assert long - short < 10  # MB; the 6 more minutes are 22 MB of samples before, 30 MB after


class Moody(torch.nn.Module):
    """Returns the noisy spectrogram, louder or softer from one chunk to the next, as no network should."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return y * (1.3 if self.calls % 2 else 0.7)


def test_joints_cannot_be_found(tiny: Path) -> None:
    """Even where neighbours disagree, nothing bends at the ends of a cross-fade more than elsewhere."""
    wave = stitched(12, "clean")
    enhancer = Enhancer(tiny, chunk_frames=256, overlap_frames=64)
    enhancer.denoiser.network = Moody()
    result = enhancer(wave, RATE).numpy()
    plan = ChunkPlan(len(wave), 64, 256, 64)
    bends = np.abs(np.diff(result, 2))
    ends = np.array([place for start in plan.fades() for place in (start, start + plan.fade)])
    at_ends = np.concatenate(
        [bends[ends + offset] for offset in (-2, -1)]
    )  # a jump onto sample k is in bends k - 2, k - 1
    around = np.concatenate([bends[ends + offset] for offset in (*range(-12, -3), *range(1, 10))])
    assert len(ends) > 20
    assert np.abs(result).max() > 0.1
    assert at_ends.mean() < 1.5 * around.mean()
