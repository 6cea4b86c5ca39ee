"""The notebooks are clean, are the only source of the package, pass their own tests, and keep the order of the modules."""
import ast
import configparser
import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from btc_hedge_rl.ground import package_hash

NBS = ROOT / "nbs"
API, RESEARCH, GUIDES = (sorted((NBS / folder).rglob("[0-9]*.ipynb")) for folder in ("api", "research", "guides"))
ALL = sorted(p for p in NBS.rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.relative_to(NBS).parts))
PACKAGE = ROOT / "btc_hedge_rl"


def name(path):
    return path.relative_to(NBS).as_posix() if path.is_relative_to(NBS) else path.name


def cells(path, kind="code"):
    return ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


def python(code, cwd, *words):
    environment = os.environ | {"PYTHONPATH": str(cwd)}
    environment.pop("IN_TEST", None)
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=cwd, env=environment, text=True, capture_output=True)


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    "A copy of the tree that a test may change."
    folder = tmp_path_factory.mktemp("copy") / "tree"
    folder.mkdir()
    for entry in ("nbs", "btc_hedge_rl", "tests"): shutil.copytree(ROOT / entry, folder / entry, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for entry in ("settings.ini", "setup.py", "pyproject.toml", "README.md"): shutil.copy(ROOT / entry, folder)
    return folder


def test_notebooks_are_clean(copy):
    done = python("from nbdev.clean import nbdev_clean; nbdev_clean()", copy)
    assert done.returncode == 0, done.stderr
    dirty = [name(p) for p in ALL if (copy / "nbs" / name(p)).read_bytes() != p.read_bytes()]
    assert dirty == [], "run nbdev_clean"


def test_notebooks_are_the_only_source(copy):
    for module in (copy / "btc_hedge_rl").rglob("*.py"):
        if module.parent.name != "btc_hedge_rl" or module.name != "__init__.py": module.unlink()
    done = python("from nbdev.doclinks import nbdev_export; nbdev_export()", copy)
    assert done.returncode == 0, done.stderr
    exported, kept = ({p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*.py")} for root in (copy / "btc_hedge_rl", PACKAGE))
    different = [n for n in sorted(kept.keys() | exported.keys()) if kept.get(n) != exported.get(n)]
    assert different == [], "run nbdev_export"


@pytest.fixture(scope="session")
def execute():
    "Runs a notebook in a fresh process, forked from one that has everything ready; its exit code."
    own = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    ready = subprocess.Popen([sys.executable, "-c", "import prepared; prepared.serve()"], cwd=ROOT, env=own, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    def run(*asked):
        print(json.dumps(asked), file=ready.stdin, flush=True)
        return int(ready.stdout.readline())
    yield run
    ready.stdin.close()
    ready.wait()


@pytest.fixture(scope="session")
def compiled():
    """Where compiled cells are kept: by the package they call, because Numba finds those of IPython by their own source
    alone, and would run what it compiled against another state of the kernels they inline."""
    folder = ROOT / ".pytest_cache" / "cells" / package_hash()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("path", [p for p in ALL if p.name == "index.ipynb"] + GUIDES + API[::-1], ids=name)     # later chapters take longer
def test_notebook_passes_its_own_tests(path, execute, compiled, tmp_path):
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    log = tmp_path / "log"
    assert execute(str(path), settings["DEFAULT"]["tst_flags"].split(), str(compiled), str(log)) == 0, log.read_text()[-6000:]


def module_of(path):
    "Module a notebook exports to, such as `market.pricing`; a chapter's door is `market`."
    found = re.search(r"^#\| *default_exp +([\w.]+)", "\n".join(cells(path)), re.M)
    return found and found[1].removesuffix(".__init__")


def imported(module):
    "What a room imports of the package: (chapter or room, name) pairs; rooms of its own chapter, doors of others."
    folder = PACKAGE.joinpath(*module.split("."))
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    parents = module.split(".") if folder.is_dir() else module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("btc_hedge_rl.")):
            base = parents[:len(parents) - node.level + 1] if node.level else []
            full = [*base, *filter(None, (node.module or "").removeprefix("btc_hedge_rl.").split("."))]
            yield from ((".".join(full), alias.name) for alias in node.names)


def test_imports_go_one_way():
    "A room imports earlier rooms of its chapter and the doors of earlier chapters, never a private name; no circles."
    order = [m for p in API if (m := module_of(p))]
    chapters = list(dict.fromkeys(m.split(".")[0] for m in order))
    arrows, wrong = set(), []
    for i, module in enumerate(order):
        chapter = module.split(".")[0]
        for source, name in imported(module):
            inside = source.split(".")[0] == chapter
            earlier = source in order[:i] if inside else source in chapters[:chapters.index(chapter)]
            if not earlier or name.startswith("_"): wrong.append(f"{module} imports {name} from {source}")
            if not inside: arrows.add((chapter, source))
    print("\n".join(f"{c:<12} <- {', '.join(s for s in chapters if (c, s) in arrows)}" for c in chapters))
    assert wrong == []


def directives(source):
    return [line for line in source.splitlines() if line.startswith("#|")]


def plain(source):
    return "\n".join(line for line in source.splitlines() if not line.startswith("#|"))


def parsed(source):
    try: return ast.parse(plain(source)).body
    except SyntaxError: return []  # magics


def is_exported(source):
    return any(re.match(r"#\| *export", line) for line in directives(source))


def only_imports(source):
    body = parsed(source)
    return bool(body) and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body)


def breath(statement):
    "Nodes of one statement: without the statements inside it, the signature of a definition, and the contexts of names."
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)): return 1
    def size(node):
        below = (child for child in ast.iter_child_nodes(node) if not isinstance(child, (ast.stmt, ast.expr_context)))
        return 1 + sum(map(size, below))
    return size(statement)


LINES, COLUMNS, NODES, RUN = 30, 120, 60, 2    # of an exported cell, of a line of code, of a statement, of exported cells without a shown one
LONGER = {  # notebook: (beginning of a line in the cell, why it may be longer)
}


def excused(path, source):
    if path.name.startswith("00_") and "lazy.attach(" in source: return True  # a door's table of names
    return any(start in source for start, _ in LONGER.get(name(path), ()))


def faults_of_form(path):
    "Where a notebook asks too much of a reader at once."
    found, run = [], 0
    for source in cells(path):
        lines, body = plain(source).strip().splitlines(), parsed(source)
        head = next((line for line in lines if line.strip()), "")[:60]
        if len({isinstance(n, (ast.Import, ast.ImportFrom)) for n in body}) > 1: found.append(f"imports want a cell of their own: {head}")
        if not lines or only_imports(source): continue
        found += [f"{len(line)} columns: {line.strip()[:60]}" for line in lines if len(line) > COLUMNS]
        shown = not is_exported(source) and not any(re.match(r"#\| *(hide|default_exp)", line) for line in directives(source))
        if shown: run = 0
        if is_exported(source) and not excused(path, source):
            run += 1
            filled = sum(bool(line.strip()) for line in lines)
            definitions = [n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
            statements = [n for top in body for n in ast.walk(top) if isinstance(n, ast.stmt)]
            found += [f"line says too much ({breath(n)} nodes): {ast.unparse(n)[:60]}" for n in statements if breath(n) > NODES]
            if filled > LINES: found.append(f"{filled} lines: {head}")
            if len(definitions) > 1 and max(n.end_lineno - n.lineno for n in definitions) > 2:
                found.append(f"{len(definitions)} definitions in a cell: {head}")
            if run > RUN: found.append(f"{run} exported cells without an example: {head}")
    return found


@pytest.mark.parametrize("path", API + GUIDES, ids=name)
def test_notebook_reads_well(path):
    first = cells(path, "markdown")[0].strip().splitlines()
    assert re.match(r"# \w", first[0]) and all(not line or re.match(r"> |- \w+: ", line) for line in first[1:]), "the first cell holds title, description and settings only"
    assert faults_of_form(path) == []


@pytest.mark.parametrize("path", RESEARCH, ids=name)
def test_research_notebook_is_a_step(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    tagged = ["".join(c["source"]) for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1 and "run_folder" in tagged[0], "one parameters cell, with run_folder"
    assert not any(re.search(r"^#\| *(export|default_exp)", s, re.M) for s in cells(path)), "a research notebook exports nothing"
    assert re.search(r"^- skip_exec: *true$", cells(path, "markdown")[0], re.M), "the front matter below the title keeps nbdev_test away"


RESEARCH_LINES = 20    # of a code cell: a study page calls, shows and discusses, and holds no logic


@pytest.mark.parametrize("path", RESEARCH, ids=name)
def test_research_notebook_holds_no_logic(path):
    code = [[line for line in plain(source).splitlines() if line.strip()] for source in cells(path)]
    long = [f"{len(lines)} lines: {lines[0]}" for lines in code if len(lines) > RESEARCH_LINES]
    wide = [line for lines in code for line in lines if len(line) > COLUMNS]
    classes = [lines[0] for lines in code if any(line.startswith("class ") for line in lines)]
    assert long + wide + classes == []


def test_glossary_names_exist():
    "Every name in the last column of the glossary is one of the package: a definition, a field or a method."
    modules = [importlib.import_module(f"btc_hedge_rl.{m}") for p in API if (m := module_of(p))]
    rows = [line for cell in cells(NBS / "guides" / "01_symbols.ipynb", "markdown") for line in cell.splitlines() if line.startswith("|")]
    names = {n for row in rows for n in re.findall(r"`([\w.]+)`", row.rstrip("| ").rpartition("|")[2])}
    def exists(name):
        owner, _, part = name.partition(".")
        thing = next((vars(m)[owner] for m in modules if owner in vars(m)), None)
        return thing is not None and (not part or hasattr(thing, part) or part in getattr(thing, "__annotations__", ()))
    assert len(names) > 30 and [n for n in sorted(names) if not exists(n)] == []


@pytest.mark.parametrize("path", ALL, ids=name)
def test_saved_outputs(path):
    "Outputs hold no error and do not tell on which machine they were made."
    outputs = [o for c in json.loads(path.read_text(encoding="utf-8"))["cells"] for o in c.get("outputs", [])]
    assert [o["evalue"] for o in outputs if o["output_type"] == "error"] == []
    text = json.dumps([{k: v for k, v in o.get("data", o).items() if not k.startswith("image/")} for o in outputs])
    assert re.findall(r"(?:/home|/root|/Users|/tmp|/work|/var/folders)/[\w./-]+", text) == []
