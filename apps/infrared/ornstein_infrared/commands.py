"""The verbs of `ornstein infrared`. Light on purpose: help pages read this file, so it imports nothing heavy."""

from ornstein.cli import App, Verb

app = App(
    name="infrared",
    summary="Enlarge infrared pictures.",
    verbs={
        "upscale": Verb("ornstein_infrared.upscale:upscale", "enlarge a frame or a folder of frames"),
        "evaluate": Verb("ornstein_infrared.evaluate:evaluate", "score checkpoints on frames with a reference"),
        "tune-guidance": Verb(
            "ornstein_infrared.tune:tune_guidance", "choose how strongly to guide, on validation frames"
        ),
        "prepare": Verb("ornstein_infrared.prepare:prepare", "copy a set into a compact folder to train from"),
        "simulate": Verb("ornstein_infrared.simulate:simulate", "make scenes where there are no data"),
        "encode": Verb("ornstein_infrared.latents:encode", "encode a folder of frames once, for training on latents"),
        "export": Verb("ornstein_infrared.export:export", "turn a training checkpoint into a file for the others"),
        "import": Verb("ornstein_infrared.published:import_checkpoint", "convert a published checkpoint"),
    },
    task="ornstein_infrared.task:InfraredTask",
    data="ornstein_infrared.data:InfraredData",
)
