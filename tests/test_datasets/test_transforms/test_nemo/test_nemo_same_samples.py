"""Configs without the later options give the samples they gave before there were any."""

import numpy as np
import pytest
from mmseg.registry import DATASETS
from nemo_helpers import mosaic_config, write_bank

from nemo_mmseg.datasets.samplers import SampleIndex

LOAD = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask')]
# Drawn with the first release.
PINNED = {
    'defaults': (
        'p m0:134 m3:214 m1:312 m0:324 '
        'p m2:143 m2:421 p p '
        'p p m3:124 m2:231 m2:432 '
        'm2:432 p p m1:312 p '
        'p m0:143 m2:142 m0:321 p'
    ),
    'published': (
        'p r0:341 r3:421 r1:231 r0:423 '
        'p r2:143 r2:412 p p '
        'm1:432 m2:143 r3:421 r2:132 m2:432 '
        'r2:342 m3:134 m1:412 m1:321 p '
        'm0:423 r0:143 m2:241 m0:213 p'
    ),
    'three by three': (
        'm4:43233444 m1:13443441 m5:21411221 m3:31211233 m0:32422223 '
        'm6:42322444 m5:14331414 m6:42122422 m3:13223132 m1:43244333 '
        'm3:43222444 m5:14333134 m8:12441211 m5:23123231 m5:43222444 '
        'm6:43232343 m7:13413111 m2:41211144 m2:31221313 m4:24344243 '
        'm0:24332423 m1:14314141 m7:14214141 m0:32132332 m4:42333443'
    ),
    'any cell': (
        'p p m2:214 p m0:324 '
        'p p m0:421 p m0:432 '
        'p p m3:124 m2:312 m2:432 '
        'p p m0:412 p m1:243 '
        'm1:423 p m1:142 m0:231 m1:423'
    ),
}


def random_bank(dataset, path):
    similarities = np.random.default_rng(5).uniform(0.4, 0.8, (9, 4))
    write_bank(dataset, path, similarities, own=np.linspace(0.6, 0.8, 9))


def drawn(mini, **settings):
    """What each of 25 samples is: kind, cell, and the numbers of the negatives; p for no mosaic."""
    # Position words bind by better rules now; "bottom" meant the same from the beginning.
    mini.refs[2]['sentences'][1]['sent'] = 'the bottom box'
    mini.write()
    path = mini.root / 'bank.safetensors'
    mosaic = mosaic_config(transforms=LOAD, bank=dict(path=str(path)), **settings)
    pipeline = [dict(type='SampleExpressions'), mosaic, dict(type='PackReferringInputs')]
    dataset = DATASETS.build(mini.config(pipeline))
    random_bank(dataset, path)
    texts = []
    for epoch in range(5):
        for index in range(5):
            sample = dataset[SampleIndex(index, epoch, 11)]['data_samples']
            made = sample.metainfo.get('mosaic')
            if made is None:
                texts.append('p')
                continue
            names = ''.join(name.removeprefix('image_')[0] for name in made['names'])
            texts.append(f'{made["kind"][0]}{made["cell"]}:{names}')
    return ' '.join(texts)


SETTINGS = {
    'defaults': dict(),
    'published': dict(
        warmup=0.5, random=0.2, mined=0.6, start_epoch=2, tau=0.6,
        tau_mode='absolute', top_k=3,
    ),
    'three by three': dict(cells=(3, 3), mined=1.0, random=0.0, tau=0.9),
    'any cell': dict(keep_positions=False, mined=1.0, top_k=3, too_few='skip', tau=0.98),
}  # fmt: skip


@pytest.mark.parametrize('name', SETTINGS)
def test_samples_are_those_of_the_first_release(mini, name):
    assert drawn(mini, **SETTINGS[name]) == PINNED[name]
