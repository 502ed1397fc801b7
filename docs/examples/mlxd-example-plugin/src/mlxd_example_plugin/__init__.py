"""An example plugin for mlxd. Imports nothing of mlxd: the marker's name and the shapes below are the whole bond."""

import pluggy

from mlxd_example_plugin.dictionary import Dictionary
from mlxd_example_plugin.tasks import WordCount, WordSwap

hookimpl = pluggy.HookimplMarker("mlxd")


@hookimpl
def mlxd_register_tasks(register):
    """Offer two tasks."""
    register(WordCount())
    register(WordSwap())


@hookimpl
def mlxd_register_runtimes(register):
    """Offer a runtime."""
    register(Dictionary())
