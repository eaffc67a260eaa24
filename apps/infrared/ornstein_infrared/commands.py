"""The verbs of `ornstein infrared`. Light on purpose: help pages read this file, so it imports nothing heavy."""

from ornstein.cli import App, Verb

app = App(
    name="infrared",
    summary="Enlarge infrared pictures.",
    verbs={"simulate": Verb("ornstein_infrared.simulate:simulate", "make scenes where there are no data")},
)
