"""All that knows Jupyter: magics, their arguments, completion, `%config`, the progress line."""

from __future__ import annotations

from typing import Any


def register(shell: Any) -> None:
    """Gives a shell the magics, completion, `%config` and the guard around questions. Again is the same as once."""
    import chatterbox_nb.render  # noqa: F401  teaches results how to show themselves
    from chatterbox_nb.notebook import completion, config, magics, questions

    config.register(shell)  # first: a profile with a bad value is refused
    shell.register_magics(magics.TTSMagics(shell))
    completion.register(shell)
    questions.register(shell)


def unregister(shell: Any) -> None:
    """Takes them away again."""
    from chatterbox_nb.notebook import completion, config, magics, questions

    for kind, names in magics.TTSMagics.magics.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(magics.TTSMagics.__name__, None)
    completion.unregister(shell)
    config.unregister(shell)
    questions.unregister(shell)
