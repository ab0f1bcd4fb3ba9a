"""Packaging of nemo_mmseg; the reasons behind the names are in the comments below."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MODULE = 'nemo_mmseg'
# What `mim train`, `mim test`, `mim run` and `mim search` look for inside an installed package.
# Benchmarks, projects and tests stay in the checkout.
MIM_PARTS = ('tools', 'configs', 'model-index.yml')


def version() -> str:
    scope: dict = {}
    exec((ROOT / 'nemo_mmseg' / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    lines = [line.split('#')[0].strip() for line in lines]
    return [line for line in lines if line]


class BuildWithMim(build_py):
    """Add to a wheel what `mim train nemo_mmseg CONFIG` and its like look for.

    mim takes its argument for the name of a distribution, and looks for tools, configs and the
    model index in the folder `.mim` of that distribution's package. The distribution cannot be
    called `nemo_mmseg` (see below), so the wheel carries `nemo_mmseg.egg-info`, by which this name
    is found too. In RECORD that folder sorts first, and onedl-mim looks for the parts of
    `nemo-mmsegmentation` in the first folder of RECORD. So both folders need a copy.

    All goes into the build folder: never into the sources, and not into an editable install. There
    mim finds the folders at the root of the checkout, and copies would make every name ambiguous.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        alias = Path(self.build_lib) / f'{MODULE}.egg-info'
        for package in (Path(self.build_lib) / MODULE, alias):
            self.copy_mim_parts(package / '.mim')
        metadata = f'Metadata-Version: 2.1\nName: {MODULE}\nVersion: {version()}\n'
        (alias / 'PKG-INFO').write_text(metadata, encoding='utf-8')
        (alias / 'top_level.txt').write_text(f'{MODULE}\n', encoding='utf-8')

    @staticmethod
    def copy_mim_parts(target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for part in MIM_PARTS:
            if (ROOT / part).is_dir():
                ignore = shutil.ignore_patterns('__pycache__', '*.py[cod]', '.*')
                shutil.copytree(ROOT / part, target / part, ignore=ignore)
            else:
                shutil.copy2(ROOT / part, target / part)


setup(
    # Not "nemo_mmseg": onedl-mim takes the folder in RECORD's first line for the package, and
    # "nemo_mmseg-0.1.0.dist-info" sorts before "nemo_mmseg/". For the same reason there are no
    # console scripts ("../../../bin/x" sorts before everything); `mim run` serves instead.
    name='nemo-mmsegmentation',
    version=version(),
    description='Referring image segmentation and NeMo augmentation for MMSegmentation',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='nemo_mmseg contributors',
    license='Apache-2.0',
    keywords='referring image segmentation, negative mining, MMSegmentation, OpenMMLab',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['nemo_mmseg', 'nemo_mmseg.*']),
    package_data={
        'nemo_mmseg': ['**/*.json', '**/*.gz', '**/*.safetensors', 'assets/**/*.md'],
    },
    cmdclass={'build_py': BuildWithMim},
    python_requires='>=3.10',
    # Neither mmsegmentation nor onedl-mmsegmentation: both own the folder mmseg/, and a requirement
    # would install one over the other. Importing nemo_mmseg without any says what to install.
    install_requires=requirements('runtime'),
    extras_require={
        'onedl': requirements('onedl'),
        'mim': requirements('mminstall'),
        'optional': requirements('optional'),
        'diffusion': requirements('diffusion'),
        'parquet': requirements('parquet'),
        'export': requirements('export'),
        'demo': requirements('demo'),
        'docs': requirements('docs'),
    },
    zip_safe=False,
)
