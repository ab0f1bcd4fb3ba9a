"""A network as a folder for a model hub: config, weights as safetensors, card."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmengine.config import Config
from safetensors.torch import save_file
from torch import Tensor, nn

from nemo_mmseg.utils.atomic_write import atomic_write, check_folder_path
from nemo_mmseg.utils.weights_file import check_floats, read_weights
from nemo_mmseg.version import __version__

from .inputs import test_pipeline_of

CONFIG, WEIGHTS, CARD = 'config.json', 'model.safetensors', 'README.md'
FORMAT = 1


def save_pretrained(
    model: nn.Module, folder: str | os.PathLike, license: str | None = None, notes: str = ''
) -> list[Path]:
    """Write a network of ``init_model`` as a folder that ``init_model`` reads.

    The config has what inference needs, the network and the test pipeline, and no paths of data. It
    is JSON: reading it runs no code. What the folder had stays until all three files are whole.

    Args:
        model: Network of ``init_model``, with its ``cfg``.
        folder: Folder, made if missing; its three files are replaced.
        license: Licence of the weights, for the card.
        notes: Text for the card, e.g. data and scores.

    Returns:
        The files.

    Raises:
        NotADirectoryError: The path is a file.
        ValueError: The config has no test pipeline, or something that JSON cannot hold; or the
            network is used as it was published.
    """
    folder = Path(folder)
    if getattr(model, 'training_free', False):
        raise ValueError(f'{type(model).__name__} is used as it was published: it has no weights')
    check_folder_path(folder)
    try:
        config = json.dumps(_inference_config(model.cfg), indent=1)
    except TypeError as error:
        raise ValueError(f'the config cannot be written as JSON: {error}') from error
    # Each tensor with memory of its own, which the format wants.
    state = {name: t.detach().cpu().clone().contiguous() for name, t in model.state_dict().items()}
    with ExitStack() as stack:  # they get their names in the reverse order: the config last
        names = (CONFIG, CARD, WEIGHTS)
        parts = {name: stack.enter_context(atomic_write(folder / name)) for name in names}
        parts[CONFIG].write_text(config + '\n', encoding='utf-8')
        parts[CARD].write_text(make_card(model, license, notes), encoding='utf-8')
        save_file(state, parts[WEIGHTS], metadata=dict(format='pt'))
        # If this is interrupted now, the folder lacks its config, and never has that of others.
        (folder / CONFIG).unlink(missing_ok=True)
    return [folder / name for name in (CONFIG, WEIGHTS, CARD)]


def read_pretrained(folder: str | os.PathLike) -> tuple[Config, Path]:
    """Read the config of a folder that :func:`save_pretrained` wrote; no code in it is run.

    Returns:
        The config, and the file of the weights.

    Raises:
        FileNotFoundError: The folder lacks config or weights.
        ValueError: The config is damaged, or of another version.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f'{folder} is no folder of a network: it lacks {name}')
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON: {error}') from error
    version = content.get('nemo_mmseg_format') if isinstance(content, dict) else None
    if version != FORMAT or not isinstance(content.get('model'), dict):
        raise ValueError(
            f'{path}: nemo_mmseg_format is {version!r} and must be {FORMAT}, beside a model'
        )
    pipeline = content.get('test_dataloader')
    for name in ('dataset', 'pipeline'):
        pipeline = pipeline.get(name) if isinstance(pipeline, dict) else None
    if not isinstance(pipeline, list):
        raise ValueError(f'{path}: test_dataloader.dataset.pipeline must be a list of transforms')
    return Config(content), folder / WEIGHTS


def read_pretrained_weights(path: str | os.PathLike, model: nn.Module) -> Mapping[str, Tensor]:
    """Read a safetensors file for a network; its names and shapes are left to the caller.

    Raises:
        ValueError: The file is damaged, or has integers where the network has floats.
    """
    state = read_weights(path)
    check_floats(path, state, model.state_dict())
    return state


def _inference_config(cfg: Config) -> dict[str, Any]:
    """Return what inference needs of a config, as plain containers."""
    plain = Config(dict(model=cfg.model, pipeline=test_pipeline_of(cfg))).to_dict()
    return dict(
        nemo_mmseg_format=FORMAT,
        nemo_mmseg_version=__version__,
        default_scope=cfg.get('default_scope') or 'mmseg',
        model=plain['model'],
        test_dataloader=dict(dataset=dict(pipeline=plain['pipeline'])),
    )


def make_card(model: nn.Module, license: str | None, notes: str) -> str:
    """Return the card of a network, Markdown with the header that hubs read."""
    parts = [
        f'- {name}: `{type(getattr(model, name)).__name__}`'
        for name in ('text_encoder', 'backbone', 'neck', 'decode_head')
        if getattr(model, name, None) is not None
    ]
    numbers = sum(parameter.numel() for parameter in model.parameters())
    header = ['---', 'library_name: nemo_mmseg', 'pipeline_tag: image-segmentation']
    header += [f'license: {license}'] if license else []
    header += ['tags:', '- referring-image-segmentation', '---', '']
    body = [
        '# A network for referring image segmentation',
        '',
        f'Trained and written with nemo_mmseg {__version__}. It has {numbers:,} parameters.',
        '',
        *parts,
        '',
        *([notes, ''] if notes else []),
        'Use it (the folder of this card in place of `FOLDER`):',
        '',
        '```python',
        'from nemo_mmseg.apis import ReferringInferencer',
        '',
        "inferencer = ReferringInferencer('FOLDER')",
        "result = inferencer('street.jpg', ['the red car', 'the man on the left'])",
        "print(result['masks'].shape, result['scores'])",
        '```',
        '',
    ]
    return '\n'.join([*header, *body])
