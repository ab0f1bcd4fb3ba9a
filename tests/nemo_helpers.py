"""What tests of mosaics share: configs written flat, and banks written by hand."""

import numpy as np

from nemo_mmseg.mining.bank_writer import BankWriter

GROUPS = dict(
    schedule=('mined', 'random', 'warmup', 'start_epoch'),
    band=('tau', 'tau_mode', 'top_k', 'i2i_sim_thres', 'too_few'),
    grid=('cells', 'probs', 'jitter', 'min_cell'),
    fill=('fit', 'blur', 'interpolation'),
)


def mosaic_config(**settings):
    """A config of `NeMoMosaic` from options without their groups."""
    config = dict(type='NeMoMosaic', size=(48, 64), transforms=[])
    for name, value in settings.items():
        group = next((group for group, names in GROUPS.items() if name in names), None)
        if group is None:
            config[name] = value
        else:
            config.setdefault(group, {})[name] = value
    return config


def write_bank(dataset, path, similarities, own=None, vectors=None, stored=3, **metadata):
    """A bank by hand.

    Args:
        dataset: The data set it is for.
        path: The file.
        similarities: (E, I) of every expression to every image of the pool, or one row for all.
        own: (E,) of every expression to its own image. Defaults to what `similarities` says.
        vectors: (I, D) of the images. Defaults to zeros.
        stored: Images stored per expression.
        metadata: Entries that differ from the data set's.
    """
    sent_ids, _, own_rows = dataset.expressions()
    pool, every = dataset.pool, np.arange(len(own_rows))
    others = np.broadcast_to(np.array(similarities, float), (len(every), len(pool))).copy()
    own = others[every, own_rows].copy() if own is None else own
    others[every, own_rows] = -np.inf
    order = np.argsort(-others, axis=1)[:, :stored]
    vectors = np.zeros((len(pool), 2)) if vectors is None else vectors
    made = dict(fingerprint=dataset.fingerprint, dataset='mini', split='train') | metadata
    with BankWriter(
        path, sent_ids, own_rows, pool.ids, list(pool.names), vectors, stored, made
    ) as writer:
        writer.write(every, order, np.take_along_axis(others, order, axis=1), own)
