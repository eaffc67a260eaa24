"""Golden noise: what a pair is, the published network, collection that resumes, training that lowers the loss."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.analysis.class_mixture import ClassMixtureDenoiser
from ornstein.analysis.examples import PROCESSES
from ornstein.errors import UserError
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.inversion.ddim import DDIMInversion
from ornstein.inversion.golden_noise import GoldenNoise, read_pairs, train_npnet
from ornstein.inversion.npnet import NPNet, SVDNet
from ornstein.process.affine import Process
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import UniformGrid, UserGrid
from tests.core.inversion.exact import CLASSES, random


def exact(process: Process) -> ClassMixtureDenoiser:
    return ClassMixtureDenoiser(CLASSES, process)


def guided(process: Process, scale: float) -> ClassifierFreeGuidance:
    """Classifier-free guidance of the exact mixture."""
    return ClassifierFreeGuidance(exact(process), scale, {"label": torch.tensor(-1)})


@reference_files("inference", "npnet_svd*.npz", needs=["z", "U", "out_flipped"])
def test_published_svd_network(vectors: ReferenceFile) -> None:
    z = vectors.tensor("z")
    network = SVDNet(*z.shape[1:], fix_signs=False)
    prefix = "sd__"
    state = {
        n.removeprefix(prefix).replace("__", "."): vectors.tensor(n) for n in vectors.names if n.startswith(prefix)
    }
    network.load_state_dict(state)
    network.double().eval()
    torch.testing.assert_close(network.folded(z), vectors.tensor("folded"))
    left, values, right, flip = (vectors.tensor(name).double() for name in ("U", "s", "Vh", "flip_signs"))
    for name, sign in (("out", torch.ones_like(flip)), ("out_flipped", flip)):
        rebuilt = network.rebuilt(left * sign[:, None], values, right * sign[..., None])
        torch.testing.assert_close(rebuilt, network.folded(vectors.tensor(name)), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(vectors.tensor("out"), vectors.tensor("out_flipped"), rtol=1e-6, atol=1e-6)
    assert network(z).shape == z.shape


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([(4, 8, 8), (3, 4, 6), (2, 12), (7,), (1, 5, 9)]), st.integers(0, 9))
def test_any_shape_and_no_dependence_on_signs(shape: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)
    network = NPNet(shape, condition=5).double()
    z, embedding = random(2, *shape, seed=seed), random(2, 5, seed=seed)
    golden = network(z, embedding)
    assert golden.shape == z.shape
    torch.testing.assert_close(golden[1:], network(z[1:], embedding[1:]))
    folded = network.svd.folded(z.reshape(2, *(1,) * (3 - len(shape)), *shape))
    left, values, right = torch.linalg.svd(folded, full_matrices=False)
    torch.testing.assert_close((left * values[:, None]) @ right, folded)
    turned = network(-z, embedding)  # every right vector changes its sign, the fixed left ones do not
    assert turned.isfinite().all()


@pytest.mark.parametrize("name", PROCESSES)
def test_equal_guidance_returns_the_noise(name: str) -> None:
    """Down and up with one estimate is the identity to second order in the step, on every process that has noise."""
    process = PROCESSES[name]
    plain, z = ClassMixtureDenoiser(CLASSES, process), random(16, 2)
    errors = []
    for step in (0.02, 0.01):
        grid = UserGrid((0.7 * process.T, (0.7 - step) * process.T, 0.0))
        back = GoldenNoise(Euler(2, grid)).improve(plain, plain, z, random(16, 2, seed=1), label=torch.ones(16))
        errors.append(float((back - z).norm()))
    assert errors[0] < 0.5
    assert errors[0] / errors[1] > 3, errors


def test_golden_noise_raises_the_probability_of_the_class() -> None:
    """And the opposite difference, as a control, lowers it."""
    process = PROCESSES["VP"]
    strong, plain, label = guided(process, 4.0), exact(process), torch.zeros(200, dtype=torch.long)
    method, z = GoldenNoise(Euler(6, UniformGrid(start=0.8))), random(200, 2)
    golden = method.improve(strong, plain, z, label=label)
    opposite = method.improve(plain, strong, z, label=label)

    def log_p(noise: Tensor) -> float:
        sample = method.sample(plain, noise)  # without the condition: what the noise alone leads to
        return float(CLASSES.log_class_posterior(sample, process, 1e-3)[:, 0].mean())

    assert log_p(opposite) < log_p(z) < log_p(golden)


def score(sample: Tensor, condition: dict[str, Tensor]) -> Tensor:
    rows = torch.arange(len(sample))
    return CLASSES.log_class_posterior(sample, PROCESSES["VP"], 0.05)[rows, condition["label"].long()]


def test_collect_resumes_and_training_lowers_the_loss(tmp_path: Path) -> None:
    process = PROCESSES["VP"]
    strong, plain = guided(process, 3.0), exact(process)
    method = GoldenNoise(Euler(4, UniformGrid(start=0.8)))
    batches = [{"label": torch.tensor([0, 1] * 32)} for _ in range(2)]
    done: list[tuple[int, int]] = []

    def collect(folder: Path, count: int) -> object:
        return method.collect(
            folder, strong, plain, batches[:count], (2,), score, on_batch=lambda i, n: done.append((i, n))
        )

    collect(tmp_path / "a", 1)
    first = (tmp_path / "a" / "pairs_00000.safetensors").read_bytes()
    pairs, other = collect(tmp_path / "a", 2), collect(tmp_path / "b", 2)
    assert (tmp_path / "a" / "pairs_00000.safetensors").read_bytes() == first
    assert torch.equal(pairs.golden, other.golden)  # type: ignore[attr-defined]
    assert done[2][1] == len(pairs) > 10  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = NPNet((2,), condition=1)
    losses = train_npnet(network, pairs, "label", epochs=8, batch=16, learning_rate=3e-3)  # type: ignore[arg-type]
    assert losses[-1] < losses[0]
    assert not network.training
    with pytest.raises(UserError, match="no condition text"):
        train_npnet(network, pairs, "text")  # type: ignore[arg-type]


def test_bad_requests(tmp_path: Path) -> None:
    process, broken = PROCESSES["VP"], tmp_path / "pairs_00000.safetensors"
    plain, method = exact(process), GoldenNoise(Euler(2))
    broken.write_bytes(b"short")
    with pytest.raises(UserError, match="delete it"):
        read_pairs(broken, (2,))
    with pytest.raises(UserError, match="no noise scored higher"):
        method.collect(
            tmp_path / "c", plain, plain, [{"label": torch.zeros(2)}], (2,), lambda x, condition: torch.zeros(len(x))
        )
    with pytest.raises(UserError, match="one number a sample"):
        method.pairs(plain, plain, random(2, 2), lambda x, condition: x, label=torch.zeros(2))
    bridge = exact(PROCESSES["bridge"])
    nearly_none = exact(PROCESSES["BBED"])
    with pytest.raises(UserError, match="times as large as the noise"):
        method.improve(nearly_none, nearly_none, random(64, 2), random(64, 2, seed=1))
    with pytest.raises(UserError, match="refinements is -1"):
        DDIMInversion(refinements=-1)
    with pytest.raises(UserError, match="has no noise"):
        method.improve(bridge, bridge, random(2, 2), random(2, 2))
    with pytest.raises(UserError, match="takes real noise of shape"):
        NPNet((2, 3))(torch.zeros(1, 2, 4))
    with pytest.raises(UserError, match="an embedding of 4 values"):
        NPNet((2,), condition=4)(torch.zeros(1, 2))
    with pytest.raises(UserError, match="expected"):
        NPNet((2,), condition=4)(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(UserError, match="one to three axes"):
        NPNet((1, 2, 3, 4))
