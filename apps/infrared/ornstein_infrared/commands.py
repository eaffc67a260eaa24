"""The verbs of `ornstein infrared`. Light on purpose: help pages read this file, so it imports nothing heavy."""

from ornstein.cli import App

app = App(name="infrared", summary="Enlarge infrared pictures.")
