"""The verbs of an app that exists for the tests only."""

from ornstein.cli import App, Verb

app = App(
    name="fake",
    summary="An app for the tests.",
    verbs={
        "copy": Verb("ornstein_fake.functions:copy", "copy a number"),
        "count": Verb("ornstein_fake.functions:count", "count names"),
        "fail": Verb("ornstein_fake.functions:fail", "fail in a chosen way"),
    },
    task="ornstein_fake.training:TinyTask",
    data="ornstein_fake.training:TinyData",
    recipes=("fake-defaults.yaml",),
)
