import pytest
import torch

from nemo_mmseg.models.converters import CONVERTERS
from nemo_mmseg.models.converters.cris import TABLE, convert_cris


def published_names(ours):
    """Names of a published checkpoint from ours, by reading the table backwards."""
    inverse = {after: before for before, after in TABLE.items()}
    for name in ours:
        prefix = max((p for p in inverse if name.startswith(f'{p}.') or name == p), key=len)
        theirs = inverse[prefix] + name[len(prefix) :]
        yield theirs.replace('.cross_attn.', '.multihead_attn.')


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_every_tensor_has_one_published_name(build, prefix):
    # In the published network words have as many channels as pixels, so that its attention packs
    # the projections of query, key and value into one; the tiny one has them apart.
    ours = build().state_dict()
    theirs = {prefix + n: t for n, t in zip(published_names(ours), ours.values(), strict=True)}
    theirs[f'{prefix}backbone.logit_scale'] = torch.tensor(1.0)
    assert len(theirs) == len(ours) + 1
    assert f'{prefix}neck.coordconv.0.conv1.0.weight' in theirs
    assert f'{prefix}backbone.visual.attnpool.connect.0.weight' in theirs
    converted, left_out = convert_cris(theirs)
    assert list(left_out) == [f'{prefix}backbone.logit_scale']
    assert converted.keys() == ours.keys()
    assert all(converted[name] is tensor for name, tensor in ours.items())
    assert CONVERTERS['cris'] is convert_cris


def test_foreign_and_doubled_tensors_are_named():
    with pytest.raises(ValueError, match='1 unknown tensor: classifier.layer'):
        convert_cris({'classifier.layer': torch.zeros(1)})
    with pytest.raises(ValueError, match='two tensors.*sentence_proj.bias'):
        convert_cris({'proj.txt.bias': torch.zeros(1), 'module.proj.txt.bias': torch.zeros(1)})
