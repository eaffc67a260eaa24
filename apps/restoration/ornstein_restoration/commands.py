"""The verbs of `ornstein restoration`. Light on purpose: help pages read this file, so it imports nothing heavy."""

from ornstein.cli import App, Verb

app = App(
    name="restoration",
    summary="Upscale photographs; remove darkness, rain and shadows from them.",
    verbs={
        "prepare": Verb("ornstein_restoration.prepare:prepare", "build a training set from free photographs"),
        "upscale": Verb("ornstein_restoration.restore:upscale", "enlarge a picture or a folder of pictures"),
        "restore": Verb("ornstein_restoration.restore:restore", "take darkness, rain or shadows out of pictures"),
        "generate": Verb("ornstein_restoration.generate:generate", "draw pictures from a model of generation"),
        "evaluate": Verb("ornstein_restoration.evaluate:evaluate", "score checkpoints on pictures with a reference"),
        "export": Verb("ornstein_restoration.export:export", "turn a training checkpoint into a file for the others"),
        "import": Verb("ornstein_restoration.published:import_checkpoint", "convert a published checkpoint"),
    },
    task="ornstein_restoration.task:RestorationTask",
    data="ornstein_restoration.data:RestorationData",
)
