"""Reference vectors: a test owns a file pattern and runs once per matching file and per case found inside.

    from reference_vectors import ReferenceFile, reference_files

    @reference_files("speech", "sde_ouve*.npz", cases=lambda v: v.prefixes("_mean"), needs=["t", "{case}_std"])
    def test_marginal(vectors: ReferenceFile, case: str) -> None:
        std = vectors.tensor(f"{case}_std")

Files are DIR/AREA/PATTERN, DIR given by `pytest -m reference --reference DIR` (default: tests/reference). Without
`cases` the test takes `vectors` only. `needs` names arrays ("{case}" is filled in) and companion files: ".safetensors"
swaps the suffix, "*_outputs.npz" puts the stem in place of the star. A file or case that lacks one is not collected. If
nothing is left, the test fails in the project's own set and is not collected in any other. Take architecture, constants
and seeds from the file, never from its name.
"""

import fnmatch
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

OWN = (Path(__file__).parent / "reference").resolve()
MARKER = "reference"
Test = TypeVar("Test", bound=Callable[..., None])


class ReferenceFile:
    """One file of a reference set: arrays of a .npz, entries of a .json, or just a path with others beside it."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def _content(self) -> dict[str, Any]:
        if self.path.suffix == ".npz":
            with np.load(self.path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        if self.path.suffix == ".json":
            return json.loads(self.path.read_text())
        return {}

    @property
    def names(self) -> list[str]:
        """Names of the arrays (or of the top-level entries of a JSON file), in file order."""
        return list(self._content)

    def __contains__(self, name: str) -> bool:
        return name in self._content

    def __getitem__(self, name: str) -> Any:
        return self._content[name]

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """An array as a tensor, of its own dtype or of `dtype`."""
        tensor = torch.from_numpy(np.array(self[name]))
        return tensor if dtype is None else tensor.to(dtype)

    def number(self, name: str) -> float:
        """An array of one element as a float."""
        return float(self[name])

    def json(self, name: str) -> Any:
        """A string entry that holds JSON, decoded."""
        return json.loads(str(self[name]))

    def prefixes(self, suffix: str) -> list[str]:
        """What stands before `suffix` in the names that end with it: "c0", "c1" for "_mean" in c0_mean, c1_mean."""
        return [name.removesuffix(suffix) for name in self.names if name.endswith(suffix) and name != suffix]

    def beside(self, name: str) -> Path:
        """The companion file: ".safetensors" swaps the suffix, "*_outputs.npz" puts the stem in place of the star."""
        return (
            self.path.with_suffix(name)
            if name.startswith(".")
            else self.path.with_name(name.replace("*", self.path.stem))
        )

    def weights(self, suffix: str = ".safetensors") -> dict[str, Tensor]:
        """The tensors of the safetensors file beside this one."""
        return load_file(self.beside(suffix))

    def has(self, need: str) -> bool:
        """Whether an array, or (".suffix", "*_name.suffix") a companion file, is there."""
        return self.beside(need).is_file() if need.startswith(".") or "*" in need else need in self

    def __repr__(self) -> str:
        return f"ReferenceFile({self.path})"


@dataclass(frozen=True)
class Owned:
    """The files and cases that one test owns."""

    area: str
    pattern: str
    cases: Callable[[ReferenceFile], Iterable[str]] | None
    needs: Sequence[str]

    def collect(self, root: Path) -> list[tuple[tuple[Any, ...], str]]:
        """Argument values and test id of every case under `root`."""
        folder = root / self.area
        paths = sorted(
            path for path in folder.glob("*") if fnmatch.fnmatchcase(path.name, self.pattern) and path.is_file()
        )
        found: list[tuple[tuple[Any, ...], str]] = []
        for path in paths:
            vectors = ReferenceFile(path)
            if self.cases is None:
                if all(vectors.has(need) for need in self.needs):
                    found.append(((vectors,), path.name))
            elif all(vectors.has(need) for need in self.needs if "{case}" not in need):
                found.extend(
                    ((vectors, case), f"{path.name}-{case}")
                    for case in self.cases(vectors)
                    if all(vectors.has(need.replace("{case}", case)) for need in self.needs)
                )
        return found

    def __str__(self) -> str:
        return f"{self.area}/{self.pattern}" + (f" with {', '.join(self.needs)}" if self.needs else "")


def reference_files(
    area: str,
    pattern: str,
    *,
    cases: Callable[[ReferenceFile], Iterable[str]] | None = None,
    needs: Sequence[str] = (),
) -> Callable[[Test], Test]:
    """Mark a test as the owner of DIR/`area`/`pattern`; it takes `vectors`, and `case` when `cases` is given."""

    def own(test: Test) -> Test:
        test.reference_files = Owned(area, pattern, cases, needs)  # type: ignore[attr-defined]
        return pytest.mark.reference(test)

    return own
