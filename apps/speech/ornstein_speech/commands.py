"""The verbs of `ornstein speech`. Light on purpose: help pages read this file, so it imports nothing heavy."""

from ornstein.cli import App, Verb

app = App(
    name="speech",
    summary="Remove noise from speech.",
    verbs={
        "enhance": Verb("ornstein_speech.enhance:enhance", "clean a recording or a folder of recordings"),
        "evaluate": Verb("ornstein_speech.evaluate:evaluate", "score a checkpoint on noisy/clean pairs, with a report"),
        "demo": Verb("ornstein_speech.demo:demo", "enhance the shipped recordings and write a page to listen to"),
        "prepare": Verb("ornstein_speech.prepare:prepare", "build a training set from public recordings"),
        "prepare-reverb": Verb("ornstein_speech.reverb:prepare_reverb", "put clean speech into simulated rooms"),
        "prepare-rooms": Verb(
            "ornstein_speech.reverb:prepare_rooms", "simulate rooms for reverberation while training"
        ),
        "prepare-corpus": Verb("ornstein_speech.corpora:prepare_corpus", "make a published corpus from your copies"),
        "resample": Verb("ornstein_speech.resampling:resample", "copy a folder of recordings at another rate"),
        "import": Verb("ornstein_speech.published:import_checkpoint", "convert a published SGMSE+ or StoRM checkpoint"),
        "export": Verb("ornstein_speech.export:export", "turn a training checkpoint into a file for enhance"),
    },
    task="ornstein_speech.task:SpeechTask",
    data="ornstein_speech.data:SpeechData",
)
