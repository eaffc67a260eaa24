import pytest
import torch

from ornstein.noise import SampleNoise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_a_sample_draws_the_same_bits_in_any_batch(dtype: torch.dtype) -> None:
    like = torch.zeros(3, 2, 5, dtype=dtype)
    together, alone = SampleNoise([4, 5, 6]), SampleNoise([5])
    for _ in range(2):  # also the second draw of each stream
        assert torch.equal(together(like)[1], alone(like[:1])[0])


def test_noise_has_unit_power_also_where_it_is_complex() -> None:
    for dtype in (torch.float64, torch.complex128):
        z = SampleNoise([0])(torch.zeros(1, 200_000, dtype=dtype))
        assert abs(z.abs().square().mean() - 1) < 0.02
    assert abs(z.real.square().mean() - 0.5) < 0.01


def test_the_number_of_seeds_has_to_match() -> None:
    with pytest.raises(ValueError, match="2 seeds for a batch of 3"):
        SampleNoise([1, 2])(torch.zeros(3, 1))
