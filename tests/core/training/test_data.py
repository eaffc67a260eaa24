from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import Points

from ornstein.errors import UserError
from ornstein.training import data
from ornstein.training.data import ResumableLoader, is_repeat
from ornstein.training.seeds import derive_seed


def indices(loader: ResumableLoader, epoch: int = 0, stop: int | None = None) -> list[list[int]]:
    loader.batch_sampler.set_epoch(epoch)
    found = []
    for batch in loader:
        found.append(batch["index"].tolist())
        if len(found) == stop:
            break
    return found


@given(items=st.integers(1, 60), size=st.integers(1, 5), ranks=st.integers(1, 5), epoch=st.integers(0, 3))
def test_ranks_share_the_items(items: int, size: int, ranks: int, epoch: int) -> None:
    per_rank = []
    lengths = set()
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(ranks):
            patch.setattr(data, "_rank_and_ranks", lambda rank=rank: (rank, ranks))
            loader = ResumableLoader(Points(items), size, train=True)
            if items < size * ranks:
                with pytest.raises(UserError, match="do not fill one batch"):
                    len(loader)
                return
            batches = indices(loader, epoch)
            lengths.add(len(loader))
            assert len(batches) == len(loader)
            assert all(len(batch) == size for batch in batches)
            per_rank.append([i for batch in batches for i in batch])
    flat = [i for share in per_rank for i in share]
    assert len(lengths) == 1
    assert len(set(flat)) == len(flat) == items // (size * ranks) * size * ranks


@given(items=st.integers(1, 30), size=st.integers(1, 5), ranks=st.integers(1, 5))
def test_evaluation_covers_every_item_once(items: int, size: int, ranks: int) -> None:
    flat, lengths = [], set()
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(ranks):
            patch.setattr(data, "_rank_and_ranks", lambda rank=rank: (rank, ranks))
            loader = ResumableLoader(Points(items), size, train=False)
            batches = list(loader)
            lengths |= {len(batches), len(loader)}
            repeats = [is_repeat(batch) for batch in batches]
            assert not any(repeats[:-1])  # one at most, where the rank would be short of a batch
            assert not repeats[-1] or len(batches[-1]["index"]) == 1
            flat += [i for batch, r in zip(batches, repeats, strict=True) if not r for i in batch["index"].tolist()]
    assert sorted(flat) == list(range(items))
    assert len(lengths) == 1  # what the ranks do together meets


def test_training_batches_are_no_repeats() -> None:
    batch = next(iter(ResumableLoader(Points(), 2, train=True)))
    assert "repeat" not in batch
    assert not is_repeat(batch)
    assert not is_repeat([torch.zeros(2)])


@given(stop=st.integers(0, 7), seed=st.integers(0, 3))
def test_goes_on_where_it_stopped(stop: int, seed: int) -> None:
    whole = indices(ResumableLoader(Points(), 2, train=True, seed=seed), epoch=2)
    first = ResumableLoader(Points(), 2, train=True, seed=seed)
    head = indices(first, 2, stop) if stop else []
    second = ResumableLoader(Points(), 2, train=True, seed=seed)
    second.load_state_dict(first.state_dict())
    assert head + indices(second, 2) == whole
    assert indices(second, 3) == indices(ResumableLoader(Points(), 2, train=True, seed=seed), 3)


def test_goes_on_with_another_batch_size() -> None:
    first, second = (ResumableLoader(Points(), size, train=True) for size in (2, 3))
    head = indices(first, 0, 4)
    second.load_state_dict(first.state_dict())
    tail = indices(second, 0)
    assert [i for batch in head + tail for i in batch] == first.order(0)


def test_other_data_begin_the_epoch_anew() -> None:
    first = ResumableLoader(Points(), 2, train=True)
    indices(first, 0, 3)
    second = ResumableLoader(Points(20), 2, train=True)
    with pytest.warns(UserWarning, match="begins anew"):
        second.load_state_dict(first.state_dict())
    assert len(indices(second)) == 10


def test_workers_see_the_epoch_and_change_nothing() -> None:
    alone, helped = (ResumableLoader(Points(), 3, train=True, num_workers=n) for n in (0, 2))
    for epoch in (0, 1, 4):
        for loader in (alone, helped):
            loader.batch_sampler.set_epoch(epoch)
        for a, b in zip(alone, helped, strict=True):
            assert a["epoch"].tolist() == [epoch] * 3
            assert torch.equal(a["x0"], b["x0"])
            assert torch.equal(a["index"], b["index"])


def test_frozen_loader_repeats_one_epoch() -> None:
    loader = ResumableLoader(Points(), 2, train=True)
    loader.frozen = True
    assert indices(loader, 0, 2) == indices(loader, 1, 2)


def test_reading_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    indices(ResumableLoader(Points(), 2, train=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_user_errors_of_the_dataset_stay_one_line(workers: int) -> None:
    class Broken(Points):
        def __getitem__(self, index: int) -> Any:
            raise UserError("item.wav is empty; remove it")

    with pytest.raises(UserError, match=r"^item\.wav is empty; remove it$"):
        next(iter(ResumableLoader(Broken(), 2, train=False, num_workers=workers)))


@pytest.mark.parametrize(("items", "size", "words"), [(0, 2, "no items"), (3, 0, "at least 1")])
def test_nothing_to_load(items: int, size: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ResumableLoader(Points(items), size, train=True)


def test_items_need_not_be_dicts() -> None:
    assert [batch.tolist() for batch in ResumableLoader(torch.arange(3), 2, train=False)] == [[0, 1], [2]]


def test_derived_seeds_differ() -> None:
    seeds = {derive_seed(0, purpose, n) for purpose in ("train", "validate") for n in range(1000)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "train", 1) == derive_seed(0, "train", 1)
