"""Settings of the documentation site: ``make docs``.

The source folder of Sphinx is the root of the checkout, so that README.md, the pages of docs/ and
configs/*/README.md are pages where they lie, and links between them are those of the repository.
"""

import os

project = 'nemo_mmseg'
author = 'nemo_mmseg contributors'
root_doc = 'docs/index'
include_patterns = [
    'README.md',
    'CHANGELOG.md',
    'docs/*.md',
    'docs/experiments/*.md',
    'docs/api/*.rst',
    'configs/*/README.md',
]
exclude_patterns = ['.venv*', 'work_dirs', 'data', 'build']
extensions = [
    'myst_parser',
    'sphinx.ext.apidoc',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]

# Anchors of headings are GitHub's.
myst_heading_anchors = 4

# Written to docs/api/ when the site is built: a page for each package, a section for each module.
automodule_options = {'members', 'show-inheritance', 'ignore-module-all'}
# Sphinx 9.0 reads the options of packages from here alone.
os.environ['SPHINX_APIDOC_OPTIONS'] = ','.join(sorted(automodule_options))
apidoc_modules = [
    {
        'path': '../nemo_mmseg',  # from here; the destination from the root
        'destination': 'docs/api',
        'automodule_options': automodule_options,
        'max_depth': 1,
    }
]
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_member_order = 'bysource'
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # no second entry for what autodoc finds in the code, too

html_theme = 'furo'
html_title = 'nemo_mmseg'
html_extra_path = ['redirect/index.html']
