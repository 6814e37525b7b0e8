"""The site: `bash scripts/docs.sh`. Pages are Markdown; tutorials run when it is built."""

import posixpath
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

import rtil

project = "rtil"
author = "rtil maintainers"
copyright = author
release = version = rtil.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
suppress_warnings = ["myst.header"]  # tables of performance.md are a level deeper

html_theme = "furo"
html_title = f"rtil {release}"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parents[1] / "build" / "docs" / "notebooks")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 1200  # a shared core
nb_merge_streams = True
napoleon_use_ivar = True
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
autodoc_typehints = "none"  # docstrings say shapes and units, which types do not
default_role = "code"

# Rooms whose modules are called by programs of one's own; those of a command are not.
ROOMS = ("models", "latents", "objectives", "operators", "inverters", "metrics")
# Pages that are files of the folder above.
ABOVE = {"contributing": "CONTRIBUTING.md", "changes": "CHANGELOG.md"}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
PROSE = re.compile(r"(`+[^`]+`+)|([*|\\]|_\b)")
HANGING = re.compile(r"^(\S.*[^:\n])\n +(?=\S)", re.MULTILINE)


def read_page(app, name, source):
    """Links to files above docs/ lead to their page or to the file, to folders they name it."""
    if name in ABOVE:
        path = Path(app.srcdir).parent / ABOVE[name]
        app.env.note_dependency(path)
        source[0] = path.read_text()
    pages = {f"../{file}": page for page, file in ABOVE.items()}
    folder = posixpath.dirname(name if name not in ABOVE else f"../{name}")

    def lead(link):
        text, path, place = link[1], link[2], link[3] or ""
        target = posixpath.normpath(posixpath.join(folder, path))
        if target in pages:
            return f"[{text}](/{pages[target]}.md{place})"
        if target.startswith("../docs/"):
            return f"[{text}](/{target.removeprefix('../docs/')}{place})"
        if not target.startswith("../"):
            return link[0]
        if (Path(app.srcdir) / target).is_dir():
            return f"`{target.removeprefix('../')}`"
        return f"{{download}}`{text} <{posixpath.relpath(target, posixpath.dirname(name))}>`"

    source[0] = LINK.sub(lead, source[0])


def read_docstring(app, what, name, obj, options, lines):
    """Docstrings are plain: indented paragraphs are equations, others are text."""
    shown: list[str] = []
    is_section = False
    for paragraph in "\n".join(lines).split("\n\n"):
        if paragraph.startswith("    ") and not is_section:
            shown.append(f"::\n\n{paragraph}")
            continue
        is_section = paragraph.rpartition("\n")[2].startswith("    ")
        text = PROSE.sub(lambda m: m[1] or "\\" + m[2], paragraph)
        count = 1
        while count:
            text, count = HANGING.subn(r"\1 ", text)
        shown.append(text)
    lines[:] = "\n\n".join(shown).split("\n")


def write_reference(app):
    """A page for each room, with all of its modules: a new one is there without being named."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    for room in ROOMS:
        package = import_module(f"rtil.{room}")
        modules = iter_modules(package.__path__, f"{package.__name__}.")
        parts = [f"{package.__name__}\n{'=' * 40}\n\n.. automodule:: {package.__name__}\n"]
        for module in modules:
            rule = "-" * len(module.name)
            parts.append(f"{module.name}\n{rule}\n\n.. automodule:: {module.name}\n")
        page = folder / f"{room}.rst"
        text = "\n".join(parts)
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def inline_math(translator, node):
    """A formula as browsers draw it themselves: no script is fetched."""
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def block_math(translator, node):
    """The same in a line of its own."""
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("builder-inited", write_reference)
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before napoleon
