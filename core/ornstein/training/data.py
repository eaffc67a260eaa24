"""A data loader that knows where it stopped: epoch order from the seed, split over ranks, resumable within an epoch."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset

from ornstein.errors import UserError
from ornstein.training.seeds import derive_seed


class SizedDataset(Protocol):
    """What the loader reads: a length and items by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class ResumableLoader:
    """Batches of a dataset whose order is a pure function of (seed, epoch).

    Training (`train=True`): every epoch is a new permutation; batch k takes the next batch_size * ranks items of it, so
    each item is used by one rank at most, all ranks get equally many full batches, and the remainder is left out.
    Evaluation: items in order, dealt to the ranks, the last batch as short as it comes out. All ranks get equally many
    batches, so that what they do together meets: a rank that is short of one repeats an item, which `is_repeat` tells.

    Lightning saves `state_dict` in its checkpoints. A resumed run goes on with the next batch of the interrupted epoch,
    also with another number of workers, ranks or items per batch. Items must be a function of (epoch, index) alone: a
    dataset that augments has a method `set_epoch(epoch)`, called before its items are read, in whichever process reads
    them. Items that are dicts get the entry "index", their number in the dataset, and in evaluation "repeat".

    Args:
        dataset: has a length and items by number.
        batch_size: items per batch and rank.
        train: shuffle and drop the remainder (True), or every item in order (False).
        seed: selects the orders of all epochs.
        num_workers: processes that read items; 0 reads in this one.
        pin_memory: hand out batches in page-locked memory, for faster copies to a GPU.
        collate_fn: makes a batch of a list of items; None stacks tensors and numbers.

    Raises:
        UserError: no items, or too few for one batch on each rank.
    """

    def __init__(
        self,
        dataset: SizedDataset,
        batch_size: int,
        *,
        train: bool,
        seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        if num_workers < 0:
            raise UserError(f"num_workers is {num_workers}; it must be at least 0, which reads in this process")
        if len(dataset) == 0:
            raise UserError("the dataset has no items; check the data folder")
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.frozen = False
        """Repeat the first epoch for ever (Lightning's overfit_batches)."""
        self.batch_sampler = _EpochCounter()  # Lightning tells `batch_sampler.sampler` of a loader which epoch begins
        self.waited = 0.0
        """Seconds that this process has waited for batches."""
        self._items = _EpochItems(dataset, train)
        self._plan = _Plan()
        self._loader: DataLoader[Any] = DataLoader(
            self._items,
            batch_sampler=self._plan,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            collate_fn=collate_fn,
            generator=torch.Generator(),  # its own: reading data must not move the global generator
        )
        self._epoch = 0  # of the last batch handed out
        self._consumed = 0  # items of that epoch handed out so far, over all ranks

    def __len__(self) -> int:
        """Batches per epoch of this rank."""
        _, ranks = _rank_and_ranks()
        if not self.train:
            return math.ceil(math.ceil(len(self._items) / ranks) / self.batch_size)
        batches = len(self._items) // (self.batch_size * ranks)
        if batches == 0:
            raise UserError(
                f"{len(self._items)} items do not fill one batch of {self.batch_size} on {ranks} rank(s); "
                "lower batch_size or use fewer devices"
            )
        return batches

    def __iter__(self) -> Iterator[Any]:
        # A generator: nothing happens before the first batch is wanted, when Lightning has told the epoch.
        epoch = 0 if self.frozen or not self.train else self.batch_sampler.epoch
        if epoch != self._epoch or self.frozen or not self.train:
            self._epoch, self._consumed = epoch, 0
        start = self._consumed
        self._plan.batches = self._batches(epoch, start)
        _, ranks = _rank_and_ranks()
        iterator = iter(self._loader)
        for number in range(len(self._plan)):
            before = time.perf_counter()
            try:
                batch = next(iterator)
            except UserError as error:  # from a worker it arrives wrapped in the text of its traceback
                last = str(error).strip().splitlines()[-1]
                raise UserError(last.removeprefix("ornstein.errors.UserError: ")) from error
            self.waited += time.perf_counter() - before
            self._consumed = start + (number + 1) * self.batch_size * ranks
            yield batch

    @property
    def _iterator(self) -> Any:
        """Lightning ends the workers of a loader through this attribute; the garbage collector takes seconds."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loader._iterator = iterator

    def order(self, epoch: int) -> list[int]:
        """Item numbers of all ranks in the order of `epoch`."""
        if not self.train:
            return list(range(len(self._items)))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        return torch.randperm(len(self._items), generator=generator).tolist()

    def state_dict(self) -> dict[str, int]:
        """Where the loader is: the batch handed out last counts as used."""
        return {"epoch": self._epoch, "consumed": self._consumed, "items": len(self._items), "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where `state` was taken; with other items or another seed the interrupted epoch begins anew."""
        self._epoch, self._consumed = state["epoch"], state["consumed"]
        if self._consumed and (state["items"], state["seed"]) != (len(self._items), self.seed):
            warnings.warn(
                "the checkpoint was made with other data or another seed; its epoch begins anew", stacklevel=2
            )
            self._consumed = 0

    def _batches(self, epoch: int, consumed: int) -> list[list[tuple[int, int, bool]]]:
        rank, ranks = _rank_and_ranks()
        order = self.order(epoch)
        size = self.batch_size
        if self.train:
            ends = range(consumed + size * ranks, len(order) + 1, size * ranks)
            mine = [order[end - size * ranks : end][rank * size : (rank + 1) * size] for end in ends]
            return [[(epoch, index, False) for index in batch] for batch in mine]
        share = order[rank::ranks]
        mine = [share[i : i + size] for i in range(0, len(share), size)]
        batches = [[(epoch, index, False) for index in batch] for batch in mine]
        if len(batches) < len(self):  # by one at most
            batches.append([(epoch, (mine[0] if mine else order)[0], True)])
        return batches


def is_repeat(batch: Any) -> bool:
    """Whether an evaluation batch of a ResumableLoader is computed only to keep the other ranks company."""
    return isinstance(batch, Mapping) and "repeat" in batch and bool(batch["repeat"].all())


class _EpochCounter:
    def __init__(self) -> None:
        self.epoch = 0
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class _Plan:
    """The batches still to read, as (epoch, index, repeat): so the epoch reaches workers that outlive it."""

    def __init__(self) -> None:
        self.batches: Sequence[list[tuple[int, int, bool]]] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int, bool]]]:
        return iter(self.batches)


class _EpochItems(Dataset[Any]):
    def __init__(self, dataset: SizedDataset, train: bool) -> None:
        self.dataset = dataset
        self.train = train
        self._epoch: int | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int, bool]) -> Any:
        epoch, index, repeat = key
        if epoch != self._epoch and hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        self._epoch = epoch
        item = self.dataset[index]
        if not isinstance(item, Mapping):
            return item
        return {**item, "index": index} if self.train else {**item, "index": index, "repeat": repeat}


def _rank_and_ranks() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
