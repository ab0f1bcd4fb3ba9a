"""Requirement files, pins and the two families stay consistent."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / 'requirements'


def names(path: Path) -> set[str]:
    """Normalised distribution names of a requirements file, included files not followed."""
    found = set()
    for line in path.read_text().splitlines():
        line = line.split('#')[0].strip()
        if line and not line.startswith('-r'):
            found.add(re.sub(r'[-_.]+', '-', re.match(r'[\w.-]+', line)[0]).lower())
    return found


FILES = sorted(path for path in FOLDER.glob('*.txt') if path.name != 'constraints.txt')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_requirement_is_pinned(path):
    assert names(path) <= names(FOLDER / 'constraints.txt')


def test_every_pin_is_exact_and_unique():
    pins = [line.split('#')[0].strip() for line in (FOLDER / 'constraints.txt').open()]
    pins = [pin for pin in pins if pin]
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+', pin) for pin in pins)
    assert len({pin.split('==')[0].lower() for pin in pins}) == len(pins)


def test_runtime_names_no_openmmlab_package():
    family = names(FOLDER / 'onedl.txt') | names(FOLDER / 'mminstall.txt')
    assert not names(FOLDER / 'runtime.txt') & family
    assert not names(FOLDER / 'onedl.txt') & names(FOLDER / 'mminstall.txt')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_included_files_exist(path):
    for line in path.read_text().splitlines():
        if line.startswith('-r'):
            assert (FOLDER / line.split()[1]).is_file()
