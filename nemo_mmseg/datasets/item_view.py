"""The items of a data set before any transform, for transforms that mix samples."""

from __future__ import annotations

from mmengine.dataset import BaseDataset


class ItemView:
    """Reads items of a data set by index; each reading gives a copy.

    It pickles with its data set, and copies of a sample share it.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.dataset.get_data_info(int(index))

    def __deepcopy__(self, memo: dict) -> ItemView:
        return self
