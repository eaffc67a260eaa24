"""The command `ornstein`: finds the installed apps, shows what they can do and runs their verbs.

Nothing here imports torch; a verb's module is imported when the verb runs.
"""

from ornstein.cli.apps import App, Verb
from ornstein.cli.command import main

__all__ = ["App", "Verb", "main"]
