"""The option --reference DIR, written with a space, for `pytest -m reference --reference DIR`.

pytest chooses its configuration file from the words of the command line that look like paths, before it reads any
conftest: DIR would be taken for the place of the tests. So the command is run again with `--reference=DIR`.
"""

import pytest


def joined(arguments: tuple[str, ...]) -> list[str]:
    """The arguments with "--reference", "DIR" as one word."""
    words = list(arguments)
    while "--reference" in words[:-1]:
        at = words.index("--reference")
        words[at : at + 2] = [f"--reference={words[at + 1]}"]
    return words


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reference", metavar="DIR", help="folder of reference vectors, laid out as DIR/AREA/")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    arguments = joined(config.invocation_params.args)
    return pytest.main(arguments) if arguments != list(config.invocation_params.args) else None
