"""What README and docs name exists, and their configs work."""

import re

import mmseg.registry
import pytest
from doc_pages import PAGES, ROOT, short
from mmengine.config import Config
from mmengine.registry import Registry
from mmseg.registry import TRANSFORMS

# Files that a reader is told to write.
TO_BE_WRITTEN = {'configs/cris/my_nemo.py', 'configs/refshapes/my_own.py'}


def anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r'[^\w\- ]', '', heading.strip('# ').lower()).replace(' ', '-')


@pytest.mark.parametrize('page', PAGES, ids=short)
def test_what_is_named_exists(page):
    text = page.read_text()
    for link in re.findall(r'\]\(([^)]+)\)', text):
        path, _, target = link.partition('#')
        if '://' in link:
            continue
        file = page.parent / path if path else page
        assert file.exists(), link
        if target:
            headings = re.findall(r'^#+ .*$', file.read_text(), re.MULTILINE)
            assert target in map(anchor, headings), link
    folders = '(?:tools|configs|docs|projects|benchmarks|tests|nemo_mmseg)'
    for name in re.findall(rf'(?<![\w/.]){folders}/[\w./+-]+\.(?:py|md|sh|txt)\b', text):
        assert (ROOT / name).is_file() or name in TO_BE_WRITTEN, name
    configs = {path.stem for path in (ROOT / 'configs').rglob('*.py')}
    named = re.findall(r'(?<![\w*-])[a-z][\w-]*_[\w-]*-\d+x\d+\b(?![*{,-])', text)
    assert set(named) <= configs
    registries = [part for part in vars(mmseg.registry).values() if isinstance(part, Registry)]
    for name in re.findall(r"type='(\w+)'", text):
        # The pages of own parts define some.
        assert f'class {name}(' in text or any(part.get(name) for part in registries), name


# docs/experiments/ is written by a tool.
WRAPPED = [page for page in PAGES if 'docs/experiments/' not in short(page)]


@pytest.mark.parametrize('page', WRAPPED, ids=short)
def test_lines_are_wrapped(page):
    lines = page.read_text().splitlines()
    long = [line for line in lines if len(line) > 100 and not line.lstrip().startswith('|')]
    assert not [line for line in long if '://' not in line]


def test_examples_of_nemo_are_configs_that_can_be_built(tmp_path):
    text = (ROOT / 'docs' / 'nemo.md').read_text()
    start, *others = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    line = re.search(r'^mosaic = .*\n', start, re.MULTILINE)[0]
    examples = [start, *(start.replace(line, code) for code in others if code.startswith('mosaic'))]
    assert len(examples) > 8
    for example in examples:
        path = tmp_path / 'example.py'
        path.write_text(example.replace("'./", f"'{ROOT}/configs/cris/"))
        mosaic = Config.fromfile(path).train_dataloader.dataset.pipeline[1]
        assert mosaic.type == 'NeMoMosaic'
        TRANSFORMS.build(mosaic)
