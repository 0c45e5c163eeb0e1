"""`%config ChatterboxNB.temperature = 0.6`: each setting as a trait, where IPython keeps its own.

What is said here, or by `c.ChatterboxNB.temperature = 0.6` in an IPython profile, is over the environment and under the
call, and is forgotten when the extension is unloaded.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from traitlets import TraitType
from traitlets.config import Config, Configurable

from chatterbox_nb import settings
from chatterbox_nb.errors import SettingError, nearest

_LINE = re.compile(r"\s*ChatterboxNB\.(\w+)\s*(=(?!=).*)?", re.DOTALL)


class _Row(TraitType):
    """A row of the settings. It reads as the value in force; what is set here is kept in `settings.configured`."""

    def __init__(self, setting: settings.Setting) -> None:
        allowed = ", ".join(setting.choices) or ("" if setting.low is None else f"{setting.low:g} to {setting.high:g}")
        about = f"{setting.about} ({allowed})" if allowed else setting.about
        super().__init__(None, allow_none=True, help=f"{about}. {setting.variable} in .env and in the environment.")
        self.tag(config=True)
        self.setting = setting.name

    def get(self, obj: Any, cls: Any = None) -> Any:  # noqa: ARG002
        return settings.value_of(self.setting)

    def set(self, obj: Any, value: Any) -> None:  # noqa: ARG002
        settings.configure(self.setting, value)

    def __delete__(self, obj: Any) -> None:
        settings.configure(self.setting, None)


# `%config ChatterboxNB` shows the name of a trait's class: <Float>, <Path>.
_KINDS = {kind: type(kind.capitalize(), (_Row,), {}) for kind in {row.kind for row in settings.SETTINGS}}

ChatterboxNB: Any = type(
    "ChatterboxNB",
    (Configurable,),
    {"__doc__": "The settings of chatterbox_nb.", "__module__": __name__}
    | {row.name: _KINDS[row.kind](row) for row in settings.SETTINGS},
)


def register(shell: Any) -> None:
    """Tells `%config`. Again is the same as once.

    Raises:
        SettingError: the profile has a bad value.
    """
    if any(isinstance(known, ChatterboxNB) for known in shell.configurables):
        return
    problem = ""
    try:
        own = ChatterboxNB(parent=shell)
    except SettingError as error:
        settings.configured.clear()
        problem = f"In the IPython profile: {error}"
    if problem:
        raise SettingError(problem)
    shell.configurables.append(own)
    before = shell.find_line_magic("config")  # IPython 9 imports it only now
    shell.magics_manager.magics["line"]["config"] = _raising(shell, own, before)


def unregister(shell: Any) -> None:
    shell.configurables[:] = [known for known in shell.configurables if not isinstance(known, ChatterboxNB)]
    magics = shell.magics_manager.magics["line"]
    magics["config"] = getattr(magics["config"], "before_chatterbox_nb", magics["config"])
    settings.configured.clear()


def _raising(shell: Any, own: Any, before: Any) -> Any:
    """`%config` as it was, but for ours: IPython logs a bad value and goes on, and the cell would not fail."""

    @functools.wraps(before)
    def config(line: str) -> Any:
        ours = _LINE.fullmatch(line)
        if ours is None or own not in shell.configurables:
            return before(line)
        name, value = ours.groups()
        if name not in settings.BY_NAME:
            raise SettingError(f"There is no setting ChatterboxNB.{name}.{nearest(name, settings.BY_NAME)}")
        if value is None:
            return getattr(own, name)
        said = Config()
        exec(f"said.{line.strip()}", shell.user_ns, {"said": said})  # as IPython does
        own.update_config(said)
        return None

    config.before_chatterbox_nb = before  # type: ignore[attr-defined]
    return config
