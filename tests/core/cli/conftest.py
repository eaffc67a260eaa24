"""Installs the test app: its package on the path, and an entry point as a wheel would bring it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parent / "packages"


def register(folder: Path, name: str, target: str) -> None:
    info = folder / f"{target.partition('.')[0]}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info.name[:-14]}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[ornstein.apps]\n{name} = {target}\n")


@pytest.fixture
def fake_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `ornstein fake` available in this process; the working folder becomes an empty one, which is returned."""
    site = tmp_path / "site"
    register(site, "fake", "ornstein_fake.commands:app")
    monkeypatch.syspath_prepend(str(PACKAGES))
    monkeypatch.syspath_prepend(str(site))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def shell(fake_app: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run `python WORDS...` in the empty folder, as a separate process that knows the test app."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        inherited = filter(None, [os.environ.get("PYTHONPATH")])
        path = os.pathsep.join([str(fake_app.parent / "site"), str(PACKAGES), *inherited])
        return subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": path}
        )

    return run
