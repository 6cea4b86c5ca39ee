"""Packaging, read from settings.ini so that there is one place for names and versions.

The study's notebooks live in nbs/research, with the outputs of the published run. A wheel carries them inside the package, without
outputs, so that it runs the study by itself; they are copied when it is built, and nothing is in the repository twice."""
import json
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
PACKAGE = ROOT / "btc_hedge_rl"
MADE = {".py", ".pyc", ".nbi", ".nbc"}  # by Python and Numba
DATA = [p.relative_to(PACKAGE).as_posix() for p in sorted(PACKAGE.rglob("*")) if p.is_file() and p.suffix not in MADE]
RESEARCH = sorted((ROOT / "nbs" / "research").glob("[0-9]*.ipynb"))
config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]


def write_without_outputs(notebook, target):
    "Copy a notebook, less what its cells have shown."
    nb = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        if cell["cell_type"] == "code": cell |= {"outputs": [], "execution_count": None}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # it may be a hard link to the original
    target.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class BuildPackage(build_py):
    def run(self):
        super().run()
        if getattr(self, "editable_mode", False): return  # a clone finds its own
        for notebook in RESEARCH:
            write_without_outputs(notebook, Path(self.build_lib, "btc_hedge_rl", "research", notebook.name))


class SourceArchive(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for notebook in RESEARCH: write_without_outputs(notebook, Path(base_dir, "nbs", "research", notebook.name))


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=cfg["keywords"].split(),
    classifiers=["Intended Audience :: Science/Research",
                 *(f"Programming Language :: Python :: {version}" for version in ("3.11", "3.12", "3.13"))],
    packages=find_packages(include=["btc_hedge_rl", "btc_hedge_rl.*"]),
    package_data={"btc_hedge_rl": DATA},
    cmdclass={"build_py": BuildPackage, "sdist": SourceArchive},
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require={extra: cfg[f"{extra}_requirements"].split() for extra in ("train", "dask", "dev")},
    entry_points={
        "console_scripts": cfg["console_scripts"].split("\n"),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
)
