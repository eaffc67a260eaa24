"""What the data modules of apps share; apps subclass it."""

from lightning.pytorch import LightningDataModule

from ornstein.training.data import ResumableLoader, SizedDataset


class DataModule(LightningDataModule):
    """Keeps `num_workers`, the loading processes of training, and `seed`, that of its order."""

    num_workers: int
    seed: int

    def loader(self, dataset: SizedDataset, batch_size: int, *, train: bool) -> ResumableLoader:
        """Shuffled batches of training items, or all items in order; see `ResumableLoader`."""
        return ResumableLoader(
            dataset,
            batch_size,
            train=train,
            seed=self.seed,
            num_workers=self.num_workers if train else 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )
