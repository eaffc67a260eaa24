"""The option --reference and the collection of tests that own reference vectors (see reference_vectors.py)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # makes `from reference_vectors import ...` work in every test

from reference_vectors import MARKER, OWN, Owned


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin("ornstein_reference"):  # without tests/plugin the option needs "=": --reference=DIR
        parser.addoption("--reference", metavar="DIR", help="folder of reference vectors, laid out as DIR/AREA/")


def _root(config: pytest.Config) -> Path:
    given = config.getoption("--reference")
    return OWN if given is None else (config.invocation_params.dir / given).resolve()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: compares with the reference vectors of --reference DIR")
    if not _root(config).is_dir():
        raise pytest.UsageError(f"--reference {_root(config)}: no such folder")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    owned: Owned | None = getattr(metafunc.function, "reference_files", None)
    if owned is None:
        return
    found = owned.collect(_root(metafunc.config))
    names = ("vectors", "case") if owned.cases else ("vectors",)
    if found:
        metafunc.parametrize(names, [values for values, _ in found], ids=[name for _, name in found])
    else:
        metafunc.parametrize(names, [(None,) * len(names)], ids=["no-match"])


def _without_match(item: pytest.Item) -> bool:
    return hasattr(item, "callspec") and item.callspec.params.get("vectors", item) is None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the tests that find nothing in a foreign set; in the project's own set they stay, and fail."""
    if _root(config) != OWN:
        items[:] = [item for item in items if not _without_match(item)]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    if _without_match(pyfuncitem):
        owned: Owned = pyfuncitem.function.reference_files
        pytest.fail(f"the project's own set has no case for {owned}", pytrace=False)
