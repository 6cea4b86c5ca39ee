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

NBS = ROOT / "nbs"
API, RESEARCH, GUIDES = (sorted((NBS / folder).glob("[0-9]*.ipynb")) for folder in ("api", "research", "guides"))
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
    for module in (copy / "btc_hedge_rl").glob("*.py"):
        if module.name != "__init__.py": module.unlink()
    done = python("from nbdev.doclinks import nbdev_export; nbdev_export()", copy)
    assert done.returncode == 0, done.stderr
    exported = {p.name: p.read_text() for p in (copy / "btc_hedge_rl").glob("*.py")}
    kept = {p.name: p.read_text() for p in PACKAGE.glob("*.py")}
    different = [n for n in sorted(kept.keys() | exported.keys()) if kept.get(n) != exported.get(n)]
    assert different == [], "run nbdev_export"


@pytest.mark.parametrize("path", API + GUIDES + [p for p in ALL if p.name == "index.ipynb"], ids=name)
def test_notebook_passes_its_own_tests(path):
    flags = configparser.ConfigParser(delimiters=["="])
    flags.read(ROOT / "settings.ini")
    code = ("import sys; from pathlib import Path; from nbdev.test import test_nb\n"
            "passed, _ = test_nb(Path(sys.argv[1]), skip_flags=sys.argv[2].split(), basepath=sys.argv[3])\n"
            "sys.exit(not passed)")
    done = python(code, ROOT, path, flags["DEFAULT"]["tst_flags"], ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def test_imports_go_one_way():
    "A module imports only modules whose notebook comes before its own."
    order = [m[1] for p in API for m in re.finditer(r"^#\| *default_exp +(\w+)", "\n".join(cells(p)), re.M)]
    for module in order:
        tree = ast.parse((PACKAGE / f"{module}.py").read_text())
        found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and not n.level}
        found |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        found |= {f"btc_hedge_rl.{n.module or n.names[0].name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level}
        inner = {f.split(".")[1] for f in found if f.startswith("btc_hedge_rl.")}
        later = inner - set(order[:order.index(module)])
        assert not later, f"{module} imports {later}"


@pytest.mark.parametrize("path", API + GUIDES, ids=name)
def test_notebook_reads_well(path):
    first = cells(path, "markdown")[0].strip().splitlines()
    assert re.match(r"# \w", first[0]) and all(not line or re.match(r"> |- \w+: ", line) for line in first[1:]), "the first cell holds title, description and settings only"
    for source in cells(path):
        lines = [line for line in source.splitlines() if not line.startswith("#|")]
        if re.search(r"^#\| *export", source, re.M): assert len(lines) <= 60, f"long cell: {lines[:3]}"
        try: body = ast.parse("\n".join(lines)).body
        except SyntaxError: continue  # magics
        kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in body}
        assert len(kinds) < 2, f"imports want a cell of their own: {lines[:3]}"


@pytest.mark.parametrize("path", RESEARCH, ids=name)
def test_research_notebook_is_a_step(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    tagged = ["".join(c["source"]) for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1 and "run_folder" in tagged[0], "one parameters cell, with run_folder"
    assert not any(re.search(r"^#\| *(export|default_exp)", s, re.M) for s in cells(path)), "a research notebook exports nothing"
    assert re.search(r"^- skip_exec: *true$", cells(path, "markdown")[0], re.M), "the front matter below the title keeps nbdev_test away"


def test_glossary_names_exist():
    "Every name in the last column of the glossary is one of the package: a definition, a field or a method."
    modules = [importlib.import_module(f"btc_hedge_rl.{p.stem}") for p in PACKAGE.glob("[!_]*.py")]
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
