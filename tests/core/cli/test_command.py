"""The umbrella command: pages, errors, exit codes, and what it does not import."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ornstein import __version__
from ornstein.cli import main
from ornstein.cli.apps import installed, load
from ornstein.errors import UserError

Shell = Callable[..., "CompletedProcess[str]"]
HEAVY = {"torch", "lightning", "numpy", "scipy", "jsonargparse", "matplotlib", "soundfile", "torchaudio"}


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run, expect exit code 2 and exactly one line on stderr; return it."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("ornstein: ")
    return lines[0]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_overview_lists_every_app_and_what_it_can_do(
    words: list[str], fake_app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    page = capsys.readouterr().out
    assert "An app for the tests." in page
    assert "copy, count, fail, fit, validate, test, predict" in page
    assert "Remove noise from speech." in page


@pytest.mark.parametrize("words", [["fake"], ["fake", "--help"]])
def test_app_page(words: list[str], fake_app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    page = capsys.readouterr().out
    assert "copy a number" in page
    assert "train, or resume training" in page


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_training_help_is_short_and_names_the_long_one(
    verb: str, fake_app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fake", verb, "--help"]) == 0
    page = capsys.readouterr().out
    assert len(page.splitlines()) < 30
    assert "--help-all" in page


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ornstein {__version__}\n"


def test_verb_help_comes_from_the_docstring(fake_app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fake", "copy", "--help"])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    assert "Write the arguments to a file" in page
    assert "replace an existing file" in page
    assert "-o" in page
    assert "--overwrite" in page


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--version"],
        ["speech", "--help"],
        ["speech", "fit", "--help"],
        ["speech", "predict", "--help"],
        ["fake"],
        ["nonsense"],
        ["speech", "nonsense"],
    ],
)
def test_pages_import_nothing_heavy(words: list[str], shell: Shell) -> None:
    code = (
        "import sys; from ornstein.cli import main; "
        f"code = main({words!r}); print('HEAVY', sorted({HEAVY!r} & set(sys.modules)), code)"
    )
    result = shell("-c", code)
    assert "HEAVY []" in result.stdout, result.stdout + result.stderr


def test_flags_are_bare_and_output_has_a_short_form(fake_app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fake", "copy", "a", "-o", "b.json"]) == 0
    assert json.loads(Path("b.json").read_text()) == {"source": "a", "times": 1, "progress": True}
    assert "b.json exists; add --overwrite" in complaint(capsys, "fake", "copy", "a", "-o", "b.json")
    assert main(["fake", "copy", "a", "--output", "b.json", "--times=2", "--overwrite", "--no_progress"]) == 0
    assert json.loads(Path("b.json").read_text()) == {"source": "a", "times": 2, "progress": False}


def test_a_list_takes_several_words(fake_app: Path) -> None:
    for words, expected in ((["a"], "a"), (["a", "b c", "d"], "['a', 'b c', 'd']")):
        assert main(["fake", "count", *words, "-o", "out"]) == 0
        assert Path("out").read_text() == expected


def test_settings_of_a_verb_may_come_from_a_file(fake_app: Path) -> None:
    Path("settings.yaml").write_text("times: 3\noverwrite: true\n")
    Path("b.json").touch()
    assert main(["fake", "copy", "--config", "settings.yaml", "a", "-o", "b.json"]) == 0
    assert json.loads(Path("b.json").read_text())["times"] == 3


@pytest.mark.parametrize(("written", "expected"), [("a", "a"), ("[a, b]", "['a', 'b']")])
def test_a_settings_file_gives_one_word_or_several(written: str, expected: str, fake_app: Path) -> None:
    Path("settings.yaml").write_text(f"inputs: {written}\noutput: out\n")
    assert main(["fake", "count", "--config", "settings.yaml"]) == 0
    assert Path("out").read_text() == expected


def test_a_settings_file_that_is_no_text(fake_app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.wav").write_bytes(b"RIFF\xe2\x28")
    for verb in ("copy", "fit"):
        assert "a.wav is no text" in complaint(capsys, "fake", verb, "--config", "a.wav")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["speach"], "did you mean speech?"),
        (["xyz"], "apps: fake, infrared, infrared-autoencoder, infrared-features, restoration, speech"),
        (["fake", "copi"], "did you mean copy?"),
        (["fake", "xyz"], "verbs: copy, count, fail, fit"),
        (["fake", "fail", "user"], "this is wrong; do that instead"),
        (["fake", "fail", "nothing"], "nothing"),
        (["fake", "copy"], "source"),
        (["fake", "copy", "a"], "output"),
        (["fake", "copy", "a", "-o", "b", "--overwite"], "did you mean --overwrite?"),
        (["fake", "copy", "a", "-o", "b", "--over"], "did you mean --overwrite?"),
        (["fake", "copy", "a", "-o", "b", "--times", "x"], "--times x is no whole number"),
        (["fake", "copy", "--source", "a", "-o", "b"], "give SOURCE without a name: ornstein fake copy SOURCE"),
        (["fake", "copy", "a", "-o", "b", "--config", "none.yaml"], "none.yaml"),
        (["fake", "copy", "a", "b", "c"], "b c"),
        (["fake", "copy", "a", "-o", ""], "--output is empty; give a name"),
        (["fake", "copy", "a", "--output="], "--output is empty; give a name"),
        (["fake", "copy", "", "-o", "b"], "the name of a file or folder is empty"),
    ],
)
def test_mistakes_give_one_line_and_code_2(
    words: list[str], expected: str, fake_app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in complaint(capsys, *words)
    assert list(fake_app.iterdir()) == []


def test_unknown_key_in_a_settings_file(fake_app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("settings.yaml").write_text("tims: 3\n")
    told = complaint(capsys, "fake", "copy", "--config", "settings.yaml", "a", "-o", "b")
    assert "there is no option 'tims'; did you mean --times?" in told


def test_interrupt_gives_130(fake_app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fake", "fail", "interrupt"]) == 130
    assert capsys.readouterr().err == "ornstein: interrupted\n"


def test_bugs_keep_their_traceback(shell: Shell) -> None:
    result = shell("-m", "ornstein", "fake", "fail", "bug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("RuntimeError: a bug\n")


def test_exit_code_reaches_the_shell(shell: Shell) -> None:
    result = shell("-m", "ornstein", "fake", "fail", "user")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "ornstein: this is wrong; do that instead\n"


def test_sys_argv_is_left_alone(fake_app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["ornstein", "fake", "copy", "a", "-o", "b.json"]
    monkeypatch.setattr(sys, "argv", list(words))
    assert main() == 0
    assert sys.argv == words
    assert Path("b.json").exists()


def test_a_broken_app_does_not_hide_the_others(
    fake_app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_app(tmp_path / "broken", "broken", "ornstein_broken.commands:app", monkeypatch)
    assert main([]) == 0
    page = capsys.readouterr().out
    assert "cannot be loaded: No module named 'ornstein_broken'" in page
    assert "An app for the tests." in page
    with pytest.raises(ModuleNotFoundError):
        main(["broken"])


def test_two_apps_of_one_name_are_refused(fake_app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_app(tmp_path / "second", "fake", "ornstein_other.commands:app", monkeypatch)
    with pytest.raises(UserError, match="two apps are called fake"):
        installed()


def test_an_entry_point_must_name_an_app(fake_app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_app(tmp_path / "wrong", "wrong", "ornstein_fake.functions:copy", monkeypatch)
    with pytest.raises(TypeError, match=r"must name an ornstein\.cli\.App"):
        load(installed()["wrong"])


def install_app(folder: Path, name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = folder / f"second_{name}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: second-{name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[ornstein.apps]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(folder))
