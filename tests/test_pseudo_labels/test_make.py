"""Response maps become files that networks train on, which tell what they lack."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mini_refcoco import HEIGHT, WIDTH, compressed, rectangle
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS
from small_runs import run_tool

from nemo_mmseg.datasets.segmentation import decode_segmentation
from nemo_mmseg.pseudo_labels import parts
from nemo_mmseg.pseudo_labels.confidence import ConfidenceSettings
from nemo_mmseg.pseudo_labels.dense_crf import CRFSettings
from nemo_mmseg.pseudo_labels.make import make_confidence_labels, make_masks
from nemo_mmseg.pseudo_labels.proposals import ProposalFile
from nemo_mmseg.pseudo_labels.refine import RefineSettings
from nemo_mmseg.pseudo_labels.response_maps import ResponseMap, ResponseMaps, write_response_maps

SMALL_IRN = Path(__file__).parents[2] / 'configs' / '_base_' / 'models' / 'irn_refshapes-clip.py'
TARGETS = {1: 101, 2: 102, 3: 103, 4: 104, 5: 201}
SHORT = RefineSettings(walk_steps=1, radius=2)
WITHOUT_CRF = ConfidenceSettings(crf=CRFSettings(steps=0))


class Responses:
    """Smooth maps of the masks; none of reference 4, nothing in that of reference 3."""

    metadata = dict(split='train', selection='prms')

    def __init__(self, masks):
        self.masks = masks

    def __contains__(self, ref_id):
        return ref_id != 4

    def response(self, ref_id, shape):
        mask = self.masks[TARGETS[ref_id]].astype(np.float32)
        smooth = cv2.GaussianBlur(mask, (0, 0), 2) * (ref_id != 3)
        return smooth / (smooth.max() + 1e-5)


class Network(torch.nn.Module):
    """Sees no edge, and no way to go."""

    def data_preprocessor(self, data):
        return data

    def predict(self, inputs):
        assert inputs[0].dtype == torch.uint8 and inputs[0].shape == (3, HEIGHT, WIDTH)
        edge = torch.zeros(1, HEIGHT // 4, WIDTH // 4)
        return edge, torch.zeros(1, 2, HEIGHT // 4, WIDTH // 4)


@pytest.fixture
def dataset(mini):
    return DATASETS.build(mini.config(group_by='image'))


@pytest.fixture
def proposals(mini, tmp_path):
    """A file with the masks of all objects and the two halves of each image."""
    halves = [rectangle(0, 0, 32, 48), rectangle(32, 0, 64, 48)]
    masks = {i: [*halves, mini.masks[100 + i]] for i in range(1, 6)}
    masks[1].append(mini.masks[201])
    content = dict(
        images=[dict(image, id=10 * image['id']) for image in mini.instances['images']],
        annotations=[
            dict(image_id=10 * i, segmentation=compressed(mask))
            for i, several in masks.items()
            for mask in several
        ],
    )
    path = tmp_path / 'proposals.json'
    path.write_text(json.dumps(content))
    return SimpleNamespace(path=str(path), content=content)


def masks_of(path):
    content = json.loads(path.read_text())
    return content, {
        one['id']: decode_segmentation(one['segmentation'], HEIGHT, WIDTH)
        for one in content['annotations']
        if one['segmentation'] is not None
    }


def test_confidence_labels_are_thresholds_of_the_maps(mini, dataset, tmp_path):
    responses, path = Responses(mini.masks), tmp_path / 'labels.json'
    made = make_confidence_labels(dataset, responses, path, WITHOUT_CRF, progress=False)
    assert (made.labelled, made.without_map, made.without_mask) == (4, (4,), ())
    content, sure = masks_of(path)
    assert content['info']['response_maps'] == responses.metadata
    assert content['info']['settings']['crf']['steps'] == 0
    assert content['info']['dataset'] == 'mini' and content['info']['made_by']
    unknown = {one['id']: one['unknown'] for one in content['annotations']}
    for ref_id in (1, 2, 5):
        response = responses.response(ref_id, None)
        ann_id = TARGETS[ref_id]
        np.testing.assert_array_equal(sure[ann_id], response > np.float32(0.3))
        np.testing.assert_array_equal(
            decode_segmentation(unknown[ann_id], HEIGHT, WIDTH),
            (response > np.float32(0.1)) & ~(response > np.float32(0.3)),
        )
    assert 103 not in sure and unknown[103] is None


def test_masks_are_an_annotation_file(mini, dataset, tmp_path):
    path = tmp_path / 'instances.json'
    sources = dict(affinity=dict(name='irn.pth', sha256='ab'))
    made = make_masks(
        dataset, Responses(mini.masks), path, Network(), None, SHORT, sources, progress=False
    )
    assert (made.labelled, made.without_map, made.without_mask) == (3, (4,), (3,))
    assert 'references without a mask: 1 (3)' in str(made)
    content, masks = masks_of(path)
    info = content['info']
    assert info['affinity'] == sources['affinity'] and info['fingerprint'] == dataset.fingerprint
    assert (info['without_map'], info['without_mask']) == ([4], [3])
    for one in content['annotations']:
        mask, truth = masks[one['id']], mini.masks[one['id']]
        assert one['area'] == mask.sum() and one['category_id'] == 1
        assert (mask & truth).sum() / (mask | truth).sum() > 0.5

    # references that lack a mask are named and counted, and left out by request
    with pytest.raises(
        ValueError, match=r'2 of 5 references have no annotation in .*: 3, 4\. With'
    ):
        DATASETS.build(mini.config(ann_file=str(path))).full_init()
    trained = DATASETS.build(mini.config(ann_file=str(path), unlabelled='leave_out'))
    assert [item['ref_ids'][0] for item in map(trained.get_data_info, range(3))] == [1, 2, 5]
    with pytest.raises(ValueError, match='unlabelled must be'):
        DATASETS.build(mini.config(unlabelled='skip'))


def test_references_that_share_an_object_share_its_mask(mini, dataset, tmp_path):
    mini.refs[4]['ann_id'] = 101
    mini.write()
    path, masks = tmp_path / 'labels.json', mini.masks

    class Shared(Responses):
        def response(self, ref_id, shape):
            left = {1: 1.0, 5: 0.5}.get(ref_id, 0.0)
            return np.where(masks[101], left, np.where(masks[201], 1 - left, 0)).astype(np.float32)

    settings = ConfidenceSettings(foreground=0.6, background=0.3, crf=CRFSettings(steps=0))
    shared = DATASETS.build(mini.config(group_by='image'))
    make_confidence_labels(shared, Shared(masks), path, settings, progress=False)
    content, sure = masks_of(path)
    assert len(content['annotations']) == 3
    np.testing.assert_array_equal(sure[101], masks[101])  # (1 + 0.5) / 2 there, 0.25 at the other


def test_the_proposal_that_fits_is_chosen(mini, dataset, proposals, tmp_path):
    path = tmp_path / 'instances.json'
    file = ProposalFile(proposals.path)
    made = make_masks(dataset, Responses(mini.masks), path, proposals=file, progress=False)
    assert made.without_mask == (3,)
    content, masks = masks_of(path)
    assert set(masks) == {101, 102, 201}
    for ann_id, mask in masks.items():
        np.testing.assert_array_equal(mask, mini.masks[ann_id])
    assert all(0.5 < one['overlap'] < 1 for one in content['annotations'])
    # also those of refined maps
    make_masks(dataset, Responses(mini.masks), path, Network(), file, SHORT, progress=False)
    np.testing.assert_array_equal(masks_of(path)[1][201], mini.masks[201])


def test_proposals_of_other_images_are_refused(mini, dataset, proposals, tmp_path):
    def refused(match, change):
        content = json.loads(json.dumps(proposals.content))
        change(content)
        path = tmp_path / 'other.json'
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=match):
            make_masks(
                dataset,
                Responses(mini.masks),
                tmp_path / 'out.json',
                proposals=ProposalFile(str(path)),
                progress=False,
            )

    def entry(kind, number, **changes):
        return lambda content: content[kind][number].update(changes)

    refused(
        'lacks 1 of 4 images, the first: image_2.jpg', entry('images', 1, file_name='COCO_7.jpg')
    )
    refused('image_3.jpg has 99x48 pixels', entry('images', 2, width=99))
    refused('image 20: file_name is .* no other', entry('images', 1, file_name='a/image_1.jpg'))
    refused("image 20: height is the text '48'", entry('images', 1, height='48'))
    refused('image at position 0: id is missing', lambda content: content['images'][0].pop('id'))
    refused('position 0: image_id is 70; allowed: the id', entry('annotations', 0, image_id=70))
    refused('position 3: image_id is \\[1\\]', entry('annotations', 3, image_id=[1]))
    refused(
        'annotation at position 0: segmentation is missing',
        lambda content: content['annotations'][0].pop('segmentation'),
    )
    refused('images is missing; allowed: a list', lambda content: content.pop('images'))
    damaged, empty = dict(size=[HEIGHT, WIDTH], counts=[7]), [[1, 2, 3, 4]]
    refused('proposal 1 of image_1.jpg: counts', entry('annotations', 1, segmentation=damaged))
    refused(
        'proposal 0 of image_1.jpg: .*not an empty', entry('annotations', 0, segmentation=empty)
    )
    assert not (tmp_path / 'out.json').exists()


def test_an_image_may_have_no_proposal(mini, dataset, proposals, tmp_path):
    kept = [one for one in proposals.content['annotations'] if one['image_id'] != 20]
    Path(proposals.path).write_text(json.dumps(dict(proposals.content, annotations=kept)))
    made = make_masks(
        dataset,
        Responses(mini.masks),
        tmp_path / 'out.json',
        proposals=ProposalFile(proposals.path),
        progress=False,
    )
    assert made.without_mask == (2, 3)


def test_masks_need_a_network_or_proposals(mini, dataset, tmp_path):
    with pytest.raises(ValueError, match='affinity network, proposals or both'):
        make_masks(dataset, Responses(mini.masks), tmp_path / 'out.json')


def test_several_targets_are_refused(gref_mini, tmp_path):
    dataset = DATASETS.build(gref_mini.config(group_by='image'))
    with pytest.raises(ValueError, match=r'reference 2 has 2 targets; pseudo labels need one'):
        make_masks(dataset, Responses({}), tmp_path / 'out.json', Network())


def test_a_place_that_takes_no_file_is_refused_before_the_work(mini, dataset, tmp_path):
    (mini.root / 'images' / 'image_1.jpg').write_bytes(b'no image')
    with pytest.raises(IsADirectoryError, match='this is a folder'):
        make_confidence_labels(dataset, Responses(mini.masks), tmp_path, progress=False)


def test_a_file_is_there_whole_or_not_at_all(mini, dataset, tmp_path):
    (mini.root / 'images' / 'image_5.jpg').unlink()
    (mini.root / 'images' / 'image_2.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match='image_2.jpg'):
        make_confidence_labels(
            dataset, Responses(mini.masks), tmp_path / 'out.json', progress=False
        )
    assert not list(tmp_path.glob('*out.json*'))


def test_a_killed_run_goes_on(mini, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, 'BLOCK_SIZE', 1)
    seen, predict = [], Network.predict

    def make(out, network=None, stop_at=0):
        def counted(self, inputs):
            seen.append(1)
            if len(seen) == stop_at:
                raise KeyboardInterrupt
            return predict(self, inputs)

        seen.clear()
        monkeypatch.setattr(Network, 'predict', counted)
        responses = Responses(mini.masks)
        make_masks(dataset, responses, out, network or Network(), None, SHORT, progress=False)

    path, whole = tmp_path / 'out.json', tmp_path / 'whole.json'
    make(whole)
    assert len(seen) == 3, 'images with a map'
    with pytest.raises(KeyboardInterrupt):
        make(path, stop_at=3)
    assert not path.exists()
    other = Network()
    other.register_buffer('weight', torch.ones(1))
    make(path, other)
    assert len(seen) == 3, 'another network begins anew'
    make(path)
    # a block is done when the next one begins: the first image was
    assert len(seen) == 2 and path.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob('*.work-*'))


def test_the_tools(mini, dataset, proposals, tmp_path, capsys):
    def record(ref_id):
        scores = cv2.resize(mini.masks[TARGETS[ref_id]].astype(np.float32), (16, 12))
        return ResponseMap(ref_id, 10 * ref_id, scores, (HEIGHT, WIDTH))

    metadata = dict(
        dataset='mini', split='train', fingerprint=dataset.fingerprint, selection='prms'
    )
    maps = tmp_path / 'maps.safetensors'
    write_response_maps(maps, list(map(record, TARGETS)), metadata)
    config = tmp_path / 'config.py'
    config.write_text(f'test_dataloader = dict(dataset={mini.config(split="val")!r})')
    out = tmp_path / 'instances.json'
    with pytest.raises(SystemExit) as done:
        run_tool('pseudo_labels/make_masks.py', config, maps, out, '--proposals', proposals.path)
    assert done.value.code == 0, capsys.readouterr().err
    assert 'references labelled: 5' in capsys.readouterr().out
    content, masks = masks_of(out)
    assert content['info']['proposals']['name'] == 'proposals.json'
    for ann_id, mask in masks.items():
        np.testing.assert_array_equal(mask, mini.masks[ann_id])
    with pytest.raises(SystemExit) as done:
        run_tool('pseudo_labels/make_confidence_labels.py', config, maps, tmp_path / 'labels.json')
    assert done.value.code == 0 and (tmp_path / 'labels.json').is_file()
    mini.refs[0]['sentences'][0]['sent'] = 'something else'
    mini.write()
    with pytest.raises(SystemExit) as done:
        run_tool('pseudo_labels/make_masks.py', config, maps, out, '--proposals', proposals.path)
    assert done.value.code == 1 and 'not of' in capsys.readouterr().err


def test_the_tool_refines_with_a_checkpoint(mini, dataset, tmp_path, capsys):
    maps = tmp_path / 'maps.safetensors'
    scores = np.eye(12, 16, dtype=np.float32)
    records = [ResponseMap(ref_id, 0, scores, (HEIGHT, WIDTH)) for ref_id in TARGETS]
    metadata = dict(dataset='mini', split='train', fingerprint=dataset.fingerprint)
    write_response_maps(maps, records, metadata)
    config = tmp_path / 'config.py'
    config.write_text(f'test_dataloader = dict(dataset={mini.config()!r})')
    model = Config.fromfile(SMALL_IRN).model
    model.backbone.pretrained = None
    network = MODELS.build(model)
    checkpoint, other = tmp_path / 'irn.pth', tmp_path / 'other.pth'
    torch.save(dict(state_dict=network.state_dict()), checkpoint)
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), other)
    irn = tmp_path / 'irn.py'
    irn.write_text(f'model = {model.to_dict()!r}')
    tool, out = 'pseudo_labels/make_masks.py', tmp_path / 'instances.json'
    with pytest.raises(SystemExit) as done:
        run_tool(tool, config, maps, out, '--affinity', irn, checkpoint, '--device', 'cpu')
    assert done.value.code == 0, capsys.readouterr().err
    info = json.loads(out.read_text())['info']
    assert info['affinity']['name'] == 'irn.pth' and len(info['affinity']['sha256']) == 64
    assert info['settings']['keep_fragments'] is False
    with pytest.raises(SystemExit) as done:
        run_tool(tool, config, maps, out, '--affinity', irn, other)
    assert done.value.code == 1 and 'other.pth does not fit' in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        run_tool(tool, config, maps, out, '--affinity', config, checkpoint)
    assert done.value.code == 1
    assert 'config.py is no config of an affinity network' in capsys.readouterr().err


@pytest.mark.slow
def test_processes_change_nothing(mini, dataset, tmp_path):
    texts = []
    maps = tmp_path / 'maps.safetensors'
    records = [
        ResponseMap(ref_id, 0, cv2.resize(mini.masks[ann].astype(np.float32), (16, 12)), (48, 64))
        for ref_id, ann in TARGETS.items()
    ]
    write_response_maps(maps, records, dict(split='train'))
    for workers in (0, 2):
        path = tmp_path / f'labels{workers}.json'
        make_confidence_labels(dataset, ResponseMaps(maps), path, workers=workers, progress=False)
        texts.append(path.read_text())
    assert texts[0] == texts[1]
