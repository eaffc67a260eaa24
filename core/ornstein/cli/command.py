"""The umbrella command: `ornstein APP VERB ...`, its help pages and its one error boundary."""

import difflib
import sys
from collections.abc import Iterable, Sequence

from ornstein import __version__
from ornstein.cli.apps import App, installed, load, resolve
from ornstein.errors import UserError

TRAINING_VERBS = {
    "fit": "train, or resume training",
    "validate": "score a training checkpoint on the validation set",
    "test": "score a training checkpoint on the test set",
    "predict": "run a training checkpoint on a data set",
}
INTERRUPTED = 130  # the shell's code for Ctrl-C

TRAINING_HELP = """\
usage: ornstein {app} {verb} --config RECIPE.yaml [options]

{summary}

the options that matter first:
  --config FILE                  a recipe; may be repeated, later files and options win
  --ckpt_path FILE|last          resume from (fit) or use (other verbs) this checkpoint
  --seed_everything N            seed of every random generator (default 0)
  --trainer.max_epochs N         when to stop; also --trainer.max_steps, --trainer.max_time
  --trainer.accelerator NAME     auto, cpu or gpu
  --trainer.devices N            processes or GPUs on this machine; --trainer.num_nodes for several machines
  --trainer.strategy NAME        auto, ddp, ...
  --trainer.precision NAME       32-true, bf16-mixed, ...
  --trainer.logger CLASS         TensorBoardLogger (default), CSVLogger, ...; false for none
  --trainer.default_root_dir DIR where logs and checkpoints go
  --trainer.fast_dev_run true    one batch of everything, to see whether it runs
  --model.NAME, --data.NAME      settings of the model and of the data
  --print_config                 print the complete recipe that would run, and stop
  --help-all                     every option
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for a user's mistake, 130 after Ctrl-C.

    Bugs leave as exceptions, with their traceback. `sys.argv` is left alone, because distributed training starts its
    other processes from it.

    Args:
        argv: the words after `ornstein`; those of `sys.argv` by default.
    """
    try:
        _run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        _report(str(error))
        return 2
    except KeyboardInterrupt:
        _report("interrupted")
        return INTERRUPTED
    except SystemExit as stop:  # help and version leave this way; so does the Trainer after Ctrl-C
        if isinstance(stop.__context__, KeyboardInterrupt):
            _report("interrupted")
            return INTERRUPTED
        raise
    return 0


def _report(message: str) -> None:
    print("ornstein:", " ".join(message.split()), file=sys.stderr)


def _run(words: list[str]) -> None:
    match words:
        case [] | ["-h" | "--help", *_]:
            print(_overview())
        case ["--version", *_]:
            print(f"ornstein {__version__}")
        case [name, *rest]:
            points = installed()
            if name not in points:
                raise UserError(f"there is no app {name!r}; {_choices(name, points, 'apps', 'ornstein')}")
            _run_app(load(points[name]), rest)


def _run_app(app: App, words: list[str]) -> None:
    verbs = _verbs(app)
    match words:
        case [] | ["-h" | "--help", *_]:
            print(_app_page(app))
        case [verb, *rest] if verb in app.verbs:
            from ornstein.cli.parser import run_function

            run_function(resolve(app.verbs[verb].target), rest, prog=f"ornstein {app.name} {verb}")
        case [verb, *rest] if verb in verbs:
            if rest and rest[0] in ("-h", "--help"):
                print(TRAINING_HELP.format(app=app.name, verb=verb, summary=_sentence(verbs[verb])), end="")
            else:
                _run_training(app, verb, rest)
        case [verb, *_]:
            raise UserError(
                f"{app.name} has no verb {verb!r}; {_choices(verb, verbs, 'verbs', f'ornstein {app.name}')}"
            )


def _run_training(app: App, verb: str, words: list[str]) -> None:
    from ornstein.training.cli import run_lightning

    run_lightning(
        resolve(app.task),
        resolve(app.data) if app.data else None,
        verb,
        ["--help" if word == "--help-all" else word for word in words],
        prog=f"ornstein {app.name}",
        recipes=app.recipes,
    )


def _verbs(app: App) -> dict[str, str]:
    """Verb -> summary: the app's own, then those of training."""
    own = {name: verb.summary for name, verb in app.verbs.items()}
    return own | (TRAINING_VERBS if app.task else {})


def _overview() -> str:
    lines = ["usage: ornstein APP VERB [options]", "", "Diffusion models for signals. Installed apps:", ""]
    points = installed()
    width = max((len(name) + 2 for name in points), default=0)
    for name, point in points.items():
        try:
            app = load(point)
        except ImportError as error:  # one broken app must not hide the others
            lines += [f"  {name:{width}}cannot be loaded: {error}"]
            continue
        lines += [f"  {name:{width}}{app.summary}", f"  {'':{width}}{', '.join(_verbs(app))}"]
    if not points:
        lines += ["  none; install one, for example: pip install ornstein-speech"]
    lines += ["", "ornstein APP --help         what an app can do", "ornstein APP VERB --help    the options of a verb"]
    return "\n".join([*lines, "ornstein --version          the version"])


def _app_page(app: App) -> str:
    lines = [f"usage: ornstein {app.name} VERB [options]", "", app.summary, ""]
    width = max(12, *(len(name) + 2 for name in _verbs(app)))
    lines += [f"  {name:{width}}{summary}" for name, summary in _verbs(app).items()]
    return "\n".join([*lines, "", f"ornstein {app.name} VERB --help    the options of a verb"])


def _choices(word: str, known: Iterable[str], plural: str, command: str) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]}? See: {command} --help"
    return f"{plural}: {', '.join(known) or 'none'}. See: {command} --help"


def _sentence(summary: str) -> str:
    return summary[:1].upper() + summary[1:] + "."
