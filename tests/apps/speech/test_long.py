"""Long recordings, stitched from the real ones: memory does not grow with the length, and joints cannot be found."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

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
    """A bridge with a network of random weights, which reaches as far as it can and knows nothing of joints."""
    generator = torch.Generator().manual_seed(0)
    network = NCSNpp(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=())
    for weights in network.parameters():
        if weights.ndim > 1:  # fresh ones give almost nothing
            torch.nn.init.kaiming_normal_(weights, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoint.save(
        path,
        Denoiser(network, SchroedingerBridge(), X0()),
        app="speech",
        representation=CompressedSpectrogram(n_fft=126, hop=64),
        sampler=Ancestral(steps=1, eta=0.0),
    )
    return path


def stitched(seconds: float) -> np.ndarray:
    """The noisy recordings one after another, as often as needed."""
    clips = np.concatenate([audio.read(path)[0][0] for path in sorted((recordings() / "noisy").glob("*.flac"))])
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


def test_joints_cannot_be_found(tiny: Path) -> None:
    """A bend or a jump at a joint would stand out in the second difference."""
    wave = stitched(12)
    enhancer = Enhancer(tiny, chunk_frames=256, overlap_frames=64)
    result = enhancer(wave, RATE).numpy()
    plan = ChunkPlan(len(wave), 64, 256, 64)
    bends = np.abs(np.diff(result, 2))
    fades = plan.fades()
    inside = np.concatenate([bends[start : start + plan.fade] for start in fades])
    between = np.concatenate([bends[start - 2 * plan.fade : start - plan.fade] for start in fades])
    assert len(fades) > 10
    assert np.abs(result).max() > 1e-3
    assert inside.max() < 2 * between.max()
    assert inside.mean() < 1.5 * between.mean()
