"""The pages that users read, and the commands in them."""

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / 'README.md',
    *(
        page
        for folder in ('docs', 'configs', 'projects', 'nemo_mmseg')
        for page in sorted((ROOT / folder).rglob('*.md'))
    ),
]
# Programs that a test reads the arguments of: in the place of each stands one that notes them.
READ = ('python', 'torchrun', 'srun', 'mim', 'make', 'pip', 'hf')
# Programs that run. Any other one in a page is an error.
RUN = ('bash', 'dirname', 'find', 'ln', 'mkdir')
NOTE = '#!/bin/sh\n{ printf "%s\\037" "${0##*/}" "$@"; echo; } >> "$COMMANDS"\n'


def short(page: Path) -> str:
    """Name of a page, for the ids of tests."""
    return str(page.relative_to(ROOT))


def commands(page: Path, folder: Path) -> list[list[str]]:
    """Run what a page tells to type, with programs that only note their arguments.

    A shell runs all blocks of the page, in their order, and after them the commands in its
    sentences. So variables, loops and quotes mean what they mean to a reader. The scripts of
    ``tools/`` run, too, and what they start is noted.

    Args:
        page: Markdown file.
        folder: Empty folder, where the commands run; it gets COCO's two folders of images.

    Returns:
        Program and arguments of each command.
    """
    programs = folder / 'programs'
    programs.mkdir()
    for name in READ:
        (programs / name).write_text(NOTE)
        (programs / name).chmod(0o755)
    for name in RUN:
        (programs / name).symlink_to(shutil.which(name))
    (folder / 'tools').symlink_to(ROOT / 'tools')
    for split in ('train2014', 'val2014'):
        (folder / 'data' / 'coco' / split).mkdir(parents=True)
        (folder / 'data' / 'coco' / split / f'{split}.jpg').touch()
    noted = folder / 'commands'
    noted.touch()
    # Pages that take up where another one ended use its variable CONFIG.
    env = dict(PATH=str(programs), COMMANDS=str(noted), CONFIG='CONFIG')
    subprocess.run(
        [shutil.which('bash'), '-eu', '-c', shell_text(page)], cwd=folder, env=env, check=True
    )
    return [line.split('\037')[:-1] for line in noted.read_text().splitlines()]


def shell_text(page: Path) -> str:
    """What a page tells to type: its blocks of shell, then the commands in its sentences."""
    text = page.read_text()
    blocks = re.findall(r'^ *```bash\n(.*?)^ *```', text, re.DOTALL | re.MULTILINE)
    sentences = re.sub(r'^ *```.*?^ *```', '', text, flags=re.DOTALL | re.MULTILINE)
    programs = '|'.join(READ)
    inline = re.findall(rf'`((?:{programs})\s[^`]+)`', sentences)
    # Outputs may name the command that fetches a file.
    fetches = re.findall(r'\bhf download [^\n`]+', text)
    return '\n'.join([*blocks, *(' '.join(line.split()) for line in inline), *fetches])
