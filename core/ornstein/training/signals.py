"""A correction to Lightning's handling of SIGTERM, without which every distributed step waits for the device."""

from typing import Any


def ask_for_sigterm_rarely(epoch_loop: Any, every: int) -> None:
    """Let the ranks ask each other every `every` batches, not at each, whether one of them is to stop.

    Lightning 2.6 broadcasts a flag and reads it before each batch of a distributed run: the host then never queues work
    ahead of a GPU. The signal itself is still seen by the process that gets it, after the batch at hand.
    """
    ask = getattr(type(epoch_loop), "_broadcast_sigterm_tensor", None)
    if ask is None:  # another version, which may not ask at all
        return

    def sometimes() -> None:
        if epoch_loop.total_batch_idx % every == 0:  # the same number on every rank
            ask(epoch_loop)

    epoch_loop._broadcast_sigterm_tensor = sometimes
