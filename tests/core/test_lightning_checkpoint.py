import argparse
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.errors import UserError
from ornstein.lightning_checkpoint import Placeholder, read


@reference_files("speech", "tiny_*.ckpt", needs=["*_outputs.npz"])
def test_reads_published_layout_without_its_code(vectors: ReferenceFile) -> None:
    checkpoint = read(vectors.path)
    assert checkpoint.state_dict
    assert checkpoint.ema is not None
    assert 0 < checkpoint.ema.decay < 1
    assert checkpoint.global_step == checkpoint.ema.num_updates
    assert issubclass(checkpoint.hyper_parameters["data_module_cls"], Placeholder)
    assert any(isinstance(value, float) for value in checkpoint.hyper_parameters.values())
    averaged = checkpoint.ema_state_dict(prefix="dnn.")
    assert {n: t.shape for n, t in averaged.items()} == {n: t.shape for n, t in checkpoint.state_dict.items()}
    assert any(not torch.equal(averaged[name], checkpoint.state_dict[name]) for name in averaged)
    theirs = torch.load(vectors.path, weights_only=False, pickle_module=_Trusting)
    assert all(torch.equal(theirs["state_dict"][name], checkpoint.state_dict[name]) for name in averaged)


class _Trusting:
    """torch's own reader, for comparison, with empty classes where the code is missing."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return (
                super().find_class(module, name) if module.startswith(("torch", "collections")) else type(name, (), {})
            )


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def contents(**entries: Any) -> dict[str, Any]:
    return {"state_dict": {"dnn.w": torch.arange(6.0).reshape(2, 3)}, "epoch": 2, "global_step": 7, **entries}


class Evil:
    """A pickle that runs a command when it is trusted."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def test_nothing_in_a_checkpoint_runs(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    attacks = {
        "system": Evil(os.system, f"touch {proof}"),
        "eval": Evil(eval, f"open({str(proof)!r}, 'w')"),
        "getattr": Evil(getattr, "text", "upper"),
        "import": Evil(__import__, "this"),
        "path": Evil(Path.touch, proof),
    }
    path = save(tmp_path / "evil.ckpt", contents(hyper_parameters=attacks))
    checkpoint = read(path)
    assert not proof.exists()
    assert all(isinstance(value, Placeholder) for value in checkpoint.hyper_parameters.values())
    torch.load(path, weights_only=False)  # the trusting reader shows that the attack is real
    assert proof.exists()


def test_readers_do_not_share_what_a_pickle_can_alter(tmp_path: Path) -> None:
    class Poison:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (torch.zeros(1), 0, (1,), (1,)), {"__defaults__": (1,)}

    before = read(save(tmp_path / "good.ckpt", contents()))
    with pytest.raises(UserError):
        read(save(tmp_path / "evil.ckpt", contents(extra=Poison())))
    after = read(tmp_path / "good.ckpt")
    assert torch.equal(before.state_dict["dnn.w"], after.state_dict["dnn.w"])


def test_tensor_kinds_survive(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {
        "view": base.reshape(4, 6)[1:, ::2].T,
        "half": base.half(),
        "brain": base.bfloat16(),
        "complex": torch.complex(base, base),
        "whole": torch.tensor(5),
        "bool": base > 3,
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(base.double()),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    found = read(save(tmp_path / "a.ckpt", {"state_dict": state})).state_dict
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_options_of_other_codes_become_placeholders(tmp_path: Path) -> None:
    options = {
        "a": argparse.Namespace(lr=1),
        "b": Path("/tmp"),
        "c": [1, "two"],
        "d": (torch.Size([1, 2]), torch.float16),
    }
    found = read(save(tmp_path / "a.ckpt", contents(hyper_parameters=options))).hyper_parameters
    assert isinstance(found["a"], Placeholder)
    assert found["a"].state == {"lr": 1}
    assert isinstance(found["b"], Placeholder)
    assert found["c"] == [1, "two"]
    assert found["d"] == (torch.Size([1, 2]), torch.float16)


def test_missing_or_unfitting_averages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no averaged weights"):
        read(save(tmp_path / "a.ckpt", contents())).ema_state_dict()
    ema = {"decay": 0.9, "num_updates": 1, "shadow_params": [torch.zeros(4)], "collected_params": None}
    with pytest.raises(UserError, match="1 averaged tensors do not match the 1 weights"):
        read(save(tmp_path / "b.ckpt", contents(ema=ema))).ema_state_dict("dnn.")


def test_buffers_have_no_published_average(tmp_path: Path) -> None:
    norm = torch.nn.BatchNorm1d(3)
    state = {f"dnn.{name}": tensor for name, tensor in norm.state_dict().items()} | {"pesq_loss.bands": torch.zeros(2)}
    ema = {"decay": 0.9, "num_updates": 1, "shadow_params": [torch.full((3,), 7.0), torch.full((3,), 8.0)]}
    averaged = read(save(tmp_path / "a.ckpt", {"state_dict": state, "ema": ema})).ema_state_dict("dnn.")
    assert averaged["dnn.weight"].tolist() == [7, 7, 7]
    assert averaged["dnn.bias"].tolist() == [8, 8, 8]
    assert averaged["dnn.running_var"].tolist() == [1, 1, 1]


def one_line(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    assert "there is no file" in one_line(tmp_path / "missing.ckpt")
    assert "is a folder" in one_line(tmp_path)
    (tmp_path / "ours.safetensors").write_text("hello")
    assert "a .safetensors file of ours is used as it is" in one_line(tmp_path / "ours.safetensors")
    (tmp_path / "text.ckpt").write_text("hello")
    assert "no PyTorch checkpoint" in one_line(tmp_path / "text.ckpt")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    assert "no PyTorch checkpoint" in one_line(tmp_path / "empty.ckpt")
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "no data.pkl" in one_line(tmp_path / "other.ckpt")
    torch.save(contents(), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert "no PyTorch checkpoint" in one_line(tmp_path / "old.ckpt")
    for content in ([1, 2], {"weights": 1}, {"state_dict": {"a": 1}}, {"state_dict": {1: torch.ones(1)}}):
        assert "not a Lightning checkpoint" in one_line(save(tmp_path / "other.ckpt", content))


def test_tensors_cannot_reach_outside_their_storage(tmp_path: Path) -> None:
    class Reaching:
        def __reduce__(self) -> Any:
            storage = torch.zeros(2).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, 0, (1000,), (1,), False, {})

    assert "damaged" in one_line(save(tmp_path / "a.ckpt", {"state_dict": {"w": Reaching()}}))


def reads_or_refuses(path: Path) -> None:
    """Damage may miss everything that matters; otherwise it must give one line, never another exception."""
    message = ""
    try:
        read(path)
    except UserError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize("seed", range(150))
def test_damaged_files_give_one_line(tmp_path: Path, seed: int) -> None:
    path = save(tmp_path / "a.ckpt", contents(hyper_parameters={"name": "x", "n": [1, 2.5, None]}))
    data = bytearray(path.read_bytes())
    dice = random.Random(seed)
    if dice.random() < 0.3:
        data = data[: dice.randrange(len(data))]
    else:
        start = data.find(b"data.pkl")
        for _ in range(dice.randrange(1, 8)):
            data[start + dice.randrange(400)] = dice.randrange(256)
    path.write_bytes(data)
    reads_or_refuses(path)


def rezip(source: Path, target: Path, dice: random.Random) -> None:
    """A pickle with changed bytes in an intact archive, so that no checksum catches it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = bytearray(old.read(name))
            if name.endswith("data.pkl"):
                for _ in range(dice.randrange(1, 4)):
                    data[dice.randrange(len(data))] = dice.choice(
                        b"\x00.)(}]abcdeghijklopqrstuRbNMKJ0123\x80\x81\x85\x93\x94"
                    )
            new.writestr(name, bytes(data))


@pytest.mark.parametrize("seed", range(200))
def test_damaged_pickles_give_one_line(tmp_path: Path, seed: int) -> None:
    source = save(tmp_path / "a.ckpt", contents(hyper_parameters={"name": "x", "n": [1, 2.5, None]}))
    rezip(source, tmp_path / "b.ckpt", random.Random(seed))
    reads_or_refuses(tmp_path / "b.ckpt")
