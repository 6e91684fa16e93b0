"""Sphinx configuration; `make docs` builds the site in docs/_build/html."""

import os
import re
from pathlib import Path

from mmdet_hetconv.version import __version__

project = 'mmdet_hetconv'
author = 'The mmdet_hetconv contributors'
copyright = author
release = version = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'mmdet_hetconv {release}'

# Headings of included pages are link targets, as on the repository's pages.
myst_heading_anchors = 3
myst_enable_extensions = ['colon_fence']

autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_inherit_docstrings = False
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ['Shape']

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# Pages of the repository whose text is a page of the site.
PAGES = {
    'README.md': 'index.md',
    'CHANGELOG.md': 'changelog.md',
    'CONTRIBUTING.md': 'contributing.md',
    'benchmarks/NOTES.md': 'measurements.md',
    'benchmarks/results': 'guide/reproduce.md',
}
INCLUDE = re.compile(r'^```\{include\} (\S+)\n```$', re.MULTILINE)
LINK = re.compile(r'(\]\(|^\[\w+\]: )([\w./-]+)(?=[#)\s])', re.MULTILINE)


def site_links(text: str, source: Path, page: Path) -> str:
    """Links as the repository has them, made links of the site.

    Args:
        text: Markdown.
        source: the file that it is from; its links are relative to it.
        page: the file of the site that shows it.
    """

    def replace(match: re.Match) -> str:
        target = Path(os.path.normpath(source.parent / match[2]))
        if not target.exists():
            return match[0]  # not a file, or Sphinx reports it
        path = target.relative_to(ROOT).as_posix()
        target = DOCS / PAGES[path] if path in PAGES else target
        return match[1] + os.path.relpath(target, page.parent)

    return LINK.sub(replace, text)


def read_source(app, docname: str, content: list[str]) -> None:
    """Put included pages in and resolve links, before a page is parsed."""
    page = DOCS / f'{docname}.md'
    text = site_links(content[0], page, page)
    content[0] = INCLUDE.sub(
        lambda match: site_links(
            (DOCS / match[1]).read_text(encoding='utf-8'),
            Path(os.path.normpath(DOCS / match[1])),
            page,
        ),
        text,
    )


def setup(app) -> None:
    app.connect('source-read', read_source)
