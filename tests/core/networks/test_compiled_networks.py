"""Networks of restoration compile as one graph and then give the same."""

from collections.abc import Iterator

import pytest
import torch
from restoration_networks import CASES


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["residual UNet", "shared encoder", "DiT", "DDIM", "ATD", "UPSR"])
def test_no_graph_breaks(name: str) -> None:
    case = CASES[name]
    side = 20 if name == "UPSR" else 16  # not the size that its buffers were made for
    network, signals = case.network(), case.signals(side, side)
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*signals), network(*signals), rtol=1e-5, atol=2e-5)
