"""The verbs of `ornstein infrared`. Light on purpose: help pages read this file, so it imports nothing heavy."""

from ornstein.cli import App, Verb

app = App(
    name="infrared",
    summary="Enlarge infrared pictures.",
    verbs={
        "simulate": Verb("ornstein_infrared.simulate:simulate", "make scenes where there are no data"),
        "encode": Verb("ornstein_infrared.latents:encode", "encode a folder of frames once, for training on latents"),
        "export": Verb("ornstein_infrared.export:export", "turn a training checkpoint into a file for the others"),
        "import": Verb("ornstein_infrared.published:import_checkpoint", "convert a published checkpoint"),
    },
)
