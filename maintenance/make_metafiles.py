"""Write what mim and the model zoo need: ``make metafiles``.

From the configs of each folder and its ``method.yml`` come ``configs/*/metafile.yml``,
``model-index.yml`` and the table in ``docs/model_zoo.md``. A test compares them with what is
committed. A new network adds a folder with configs and a ``method.yml``, and edits nothing here.
"""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import yaml
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / 'docs' / 'model_zoo.md'
BEGIN, END = '<!-- made by `make metafiles`: begin -->', '<!-- end -->'
HEADER = '# Made by `make metafiles` from the configs and method.yml; edit those.\n'
# METHOD_BACKBONE[_AUGMENTATION]_GPUSxbBATCH-LENGTH_DATA-HEIGHTxWIDTH, or, of a network that is used
# as it was published, METHOD_BACKBONE_DATA-HEIGHTxWIDTH
NAME = re.compile(
    r'(?P<network>[^_]+_[^_]+)((_(?P<augmentation>[a-z-]+))?_(?P<gpus>\d+)xb(?P<batch>\d+)-'
    r'\d+[ei])?_(?P<data>.+)-(?P<size>\d+x\d+)'
)
AUGMENTATIONS = dict(
    nemo='NeMo',
    mosaic='random mosaic (YOLOv4)',
    cutmix='CutMix',
    mixgen='MixGen',
    copypaste='copy-paste',
    maskris='MaskRIS',
    negexp='random negative expressions',
    minednegexp='mined negative expressions',
)
AUGMENTATIONS['nemo-maskris'] = 'NeMo + MaskRIS'
DATA = {
    'refcoco': 'RefCOCO',
    'refcoco-plus': 'RefCOCO+',
    'refcocog-umd': 'RefCOCOg (umd)',
    'refcocog-google': 'RefCOCOg (google)',
    'refcoco-joint': 'RefCOCO, RefCOCO+ and RefCOCOg (umd) together',
    'grefcoco': 'gRefCOCO',
    'referit': 'ReferIt',
    'refcoco-parquet': 'RefCOCO',
    'refcoco-plus-parquet': 'RefCOCO+',
    'refcocog-umd-parquet': 'RefCOCOg (umd)',
    'refcoco-m': 'RefCOCO (tested on RefCOCO-M)',
    'refcoco-clean': 'RefCOCO (tested on clean masks, too)',
    'refcoco-reviewed': 'RefCOCO (tested on reviewed expressions, too)',
    'rrefcoco': 'R-RefCOCO',
    'rrefcoco-plus': 'R-RefCOCO+',
    'rrefcocog': 'R-RefCOCOg',
    'ref-zom': 'Ref-ZOM',
    'refshapes-plus': 'RefShapes+',
    'refshapes-plus-json': 'RefShapes+ in the JSON form',
    'grefshapes': 'gRefShapes',
    'refphotos': 'a handful of photographs',
}


class Named(NamedTuple):
    """A config and what its name says.

    Attributes:
        path: The file.
        network: ``method_backbone``.
        augmentation: Key of ``AUGMENTATIONS``, or None.
        data: Key of ``DATA``.
        batch_size: Images per step, over all GPUs; 0 where nothing trains.
        size: ``HEIGHTxWIDTH`` of the input.
    """

    path: Path
    network: str
    augmentation: str | None
    data: str
    batch_size: int
    size: str

    @classmethod
    def of(cls, path: Path) -> Named:
        """Read the name of a config."""
        found = NAME.fullmatch(path.stem)
        batch_size = int(found['gpus'] or 0) * int(found['batch'] or 0)
        return cls(
            path, found['network'], found['augmentation'], found['data'], batch_size, found['size']
        )


def entry(config: Named, collection: dict) -> dict:
    """Return the entry of a config in a metafile."""
    cfg = Config.fromfile(config.path, import_custom_modules=False)
    metadata = {
        'Training Data': DATA[config.data] if cfg.train_cfg else 'none of this package',
        'Training Techniques': cfg.optim_wrapper.optimizer.type if cfg.train_cfg else 'none',
        'Backbone': backbone(config, collection),
    }
    if cfg.train_cfg:
        epochs = cfg.train_cfg.get('max_epochs')
        metadata['Augmentation'] = AUGMENTATIONS.get(config.augmentation, 'none')
        metadata |= dict(Epochs=epochs) if epochs else dict(Iterations=cfg.train_cfg.max_iters)
        metadata['Batch Size'] = config.batch_size
    return {
        'Name': config.path.stem,
        'In Collection': collection['Name'],
        'Config': str(config.path.relative_to(ROOT)),
        'Metadata': {**metadata, 'Crop Size': config.size},
    }


def backbone(config: Named, collection: dict) -> str:
    """Return the name of the backbone, as ``method.yml`` has it, else as the config has it."""
    network = collection.get('Networks', {}).get(config.network, {})
    return network.get('Backbone', config.network.split('_')[1])


def metafile(folder: Path) -> tuple[str, list[str]]:
    """Return the metafile of a folder, and the rows of its networks in the model zoo."""
    collections, models, rows = [], [], []
    for collection in yaml.safe_load((folder / 'method.yml').read_text()):
        paths = sorted(folder.glob('*.py'))
        configs = [Named.of(path) for path in paths if fnmatch(path.name, collection['Configs'])]
        entries = [entry(config, collection) for config in configs]
        metadata = [one['Metadata'] for one in entries]
        keys = 'Training Data', 'Training Techniques'
        joined = {key: ', '.join(dict.fromkeys(of[key] for of in metadata)) for key in keys}
        collections.append(
            {
                'Name': collection['Name'],
                'Metadata': {**joined, 'Architecture': collection['Architecture']},
                'Paper': {key: collection[key] for key in ('Title', 'URL')},
                'README': f'{folder.relative_to(ROOT)}/README.md',
            }
        )
        models += entries
        if 'Published' in collection:
            rows += [zoo_row(config, collection) for config in configs]
    content = dict(Collections=collections, Models=models)
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=100), rows


def zoo_row(config: Named, collection: dict) -> str:
    """Return the row of a config in the model zoo."""
    network = config.network
    # The folder of a way of training has several methods.
    method = collection['Networks'].get(network, {}).get('Method', collection['Name'])
    if config.augmentation:
        method += f' + {AUGMENTATIONS[config.augmentation]}'
        network += f'_{config.augmentation}'
    scores = collection['Published'].get(network, {})
    # Weights were published where scores were, unless the scores are of another paper.
    converter = collection['Networks'].get(network, {}).get('Converter')
    cells = (
        method,
        backbone(config, collection),
        DATA[config.data],
        scores.get(config.data, ''),
        f'`{config.path.stem}`',
        f'`{converter}`' if converter and config.data in scores else '',
    )
    return '| ' + ' | '.join(cells) + ' |'


def render() -> dict[Path, str]:
    """Return all files that are made, by their paths."""
    files, rows = {}, []
    folders = sorted(path.parent for path in (ROOT / 'configs').glob('*/method.yml'))
    for folder in folders:
        files[folder / 'metafile.yml'], more = metafile(folder)
        rows += more
    names = [str(path.relative_to(ROOT)) for path in files]
    files[ROOT / 'model-index.yml'] = HEADER + yaml.safe_dump(dict(Import=names))
    head = '| method | backbone | data set | published | config | converter |\n' + 6 * '|---' + '|'
    before, rest = ZOO.read_text().split(BEGIN)
    after = rest.split(END)[1]
    table = '\n'.join([BEGIN, head, *rows, END])
    files[ZOO] = f'{before}{table}{after}'
    return files


def main() -> int:
    """Write the files and name those that changed."""
    for path, text in render().items():
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
            print(f'{path.relative_to(ROOT)} is new')
    return 0


if __name__ == '__main__':
    sys.exit(main())
