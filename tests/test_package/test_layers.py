"""A module of the package imports only what lies in a layer below its own."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ('utils', 'negatives', 'datasets', 'mining')
# What each folder may import beside itself; `compat` and `version` are for all.
MAY_IMPORT = {
    'utils': (),
    'refshapes': ('utils',),
    'negatives': DATA[:1],
    'datasets': DATA[:2],
    'mining': DATA[:3],
    'models': ('utils',),
    'evaluation': ('utils',),
    'pseudo_labels': (*DATA[:3], 'evaluation', 'models'),
    'visualization': (*DATA, 'evaluation', 'models'),
    'engine': (*DATA, 'evaluation', 'models', 'visualization'),
    'apis': (*DATA, 'evaluation', 'models', 'visualization', 'engine'),
    'deployment': (*DATA, 'models', 'apis'),
    'webdemo': (*DATA, 'evaluation', 'visualization', 'apis', 'refshapes'),
}


def imported_folders(file: Path) -> set[str]:
    """The folders of the package whose modules a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            package = '.'.join(file.relative_to(ROOT).parts[: -node.level])
            names.add(f'{package}.{node.module or ""}')
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    parts = [name.split('.') for name in names]
    return {part[1] for part in parts if part[0] == 'nemo_mmseg' and len(part) > 1}


FILES = sorted((ROOT / 'nemo_mmseg').glob('*/**/*.py'))


@pytest.mark.parametrize('folder', sorted({f.relative_to(ROOT).parts[1] for f in FILES}))
def test_imports_point_to_lower_layers(folder):
    allowed = {folder, 'compat', 'version', *MAY_IMPORT[folder]}
    wrong = {
        str(file.relative_to(ROOT)): sorted(above)
        for file in FILES
        if file.relative_to(ROOT).parts[1] == folder
        if (above := imported_folders(file) - allowed)
    }
    assert not wrong
