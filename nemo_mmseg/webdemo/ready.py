"""What the demo shows without any file of the user's: a small RefShapes and the small CLIP."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from nemo_mmseg.mining.requirements import make, requirements_of
from nemo_mmseg.refshapes.vocabulary import CATEGORIES, COLOURS, TEXTURES
from nemo_mmseg.refshapes.write import make_refshapes
from nemo_mmseg.utils.config import find_config

NETWORK = 'gradcam_refshapes-clip_refshapes-plus-256x256'
MOSAICS = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256'
VARIANT = 'refshapes+'
# Enough for bands of 30 images; made and mined in less than a minute on two cores.
SIZES = dict(train=150, val=12, testA=0, testB=0)

ABOUT_SMALL_NETWORK = f"""
This is the small CLIP of the package, of 2.2 million parameters. It was trained on pairs of drawn
scenes and expressions, never on a mask: its masks are response maps (Grad-CAM), cut at half of
their maximum.

- It knows the words of RefShapes: {', '.join(CATEGORIES)}; {', '.join(COLOURS)};
  {', '.join(TEXTURES)}. Of photographs and of other words it knows nothing.
- On drawn scenes it finds the right place more often than the right border.
- It cannot tell that something is missing. It answers "nothing found" only if its response map is
  empty. ReLA, for one, learns to say so.
""".strip()


def small_refshapes_configs(folder: str | os.PathLike) -> tuple[Config, Config]:
    """Return the configs of the small network, and of NeMo on a RefShapes.

    Args:
        folder: Root of the data, see :func:`small_refshapes`.
    """
    network = Config.fromfile(find_config(NETWORK))
    mosaics = Config.fromfile(find_config(MOSAICS))
    dataset = mosaics.train_dataloader.dataset
    name = Path(dataset.pipeline[1].bank.path).name
    dataset.data_root = f'{folder}/'
    dataset.pipeline[1].bank.path = f'{folder}/banks/{name}'
    return network, mosaics


def small_refshapes(folder: str | os.PathLike, num_workers: int = 0) -> list[tuple[str, str]]:
    """Make a small RefShapes with its bank where there is none.

    Args:
        folder: Root of the data. A RefShapes of any size that is there is used as it is.
        num_workers: Processes that decode images for the bank. Defaults to 0.

    Returns:
        Examples of the val split: a picture, and two of its expressions, one a line.

    Raises:
        OSError: The folder cannot be written.
        BankError: There is a bank, but of other data.
    """
    folder = Path(folder)
    if not (folder / VARIANT / 'settings.json').is_file():
        make_refshapes(folder, VARIANT, SIZES, workers=1)
    _, cfg = small_refshapes_configs(folder)
    init_default_scope('mmseg')
    for requirement in requirements_of(DATASETS.build(cfg.train_dataloader.dataset)):
        make(requirement, num_workers=num_workers, progress=False)
    cfg.val_dataloader.dataset.data_root = f'{folder}/'
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    items = [dataset.get_data_info(index) for index in range(min(3, len(dataset)))]
    # One expression each of the first two objects.
    return [(item['img_path'], '\n'.join(item['expressions'][:4:3])) for item in items]
