"""The verbs of `ornstein restoration`. Light on purpose: help pages read this file, so it imports nothing heavy."""

from ornstein.cli import App, Verb

app = App(
    name="restoration",
    summary="Upscale photographs; remove darkness, rain and shadows from them.",
    verbs={
        "prepare": Verb("ornstein_restoration.prepare:prepare", "build a training set from free photographs"),
    },
)
