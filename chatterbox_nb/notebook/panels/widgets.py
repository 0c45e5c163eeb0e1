"""The widgets that panels are made of, the same on ipywidgets 7 and 8; each difference between them stands here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

_STYLE = {"description_width": "94px"}


def html(value: str = "", *classes: str) -> Any:
    return _classed(ipywidgets.HTML(value), *classes)


def column(children: Sequence[Any], *classes: str) -> Any:
    return _classed(ipywidgets.VBox(list(children)), *classes)


def row(*children: Any) -> Any:
    return _classed(ipywidgets.HBox(list(children)), "cbnb-row")


def button(text: str, action: Callable[[Any], None], tip: str = "", icon: str = "", main: bool = False) -> Any:
    made = ipywidgets.Button(
        description=text,
        tooltip=tip or text,
        icon=icon,
        button_style="primary" if main else "",
        layout={"width": "auto" if text else "36px", "min_width": "64px" if text else "0"},
    )
    made.on_click(action)
    return made


def dropdown(label: str, options: Sequence[Any], value: Any) -> Any:
    return _field(ipywidgets.Dropdown(description=label, options=list(options), value=value, style=_STYLE))


def text(label: str, placeholder: str = "", value: str = "") -> Any:
    return _field(
        ipywidgets.Text(description=label, placeholder=placeholder, value=value, style=_STYLE, continuous_update=False)
    )


def textarea(label: str, placeholder: str) -> Any:
    return _field(
        ipywidgets.Textarea(description=label, placeholder=placeholder, rows=4, style=_STYLE, continuous_update=False)
    )


def slider(label: str, value: float, low: float, high: float, step: float) -> Any:
    return _field(
        ipywidgets.FloatSlider(
            description=label, value=value, min=low, max=max(high, value), step=step, readout_format=".2f",
            continuous_update=False, style=_STYLE,
        )
    )  # fmt: skip


def number(label: str, value: float, low: float, high: float, step: float) -> Any:
    return _field(
        ipywidgets.BoundedFloatText(description=label, value=value, min=low, max=high, step=step, style=_STYLE)
    )


def whole(label: str, value: int, low: int, high: int) -> Any:
    return _field(ipywidgets.BoundedIntText(description=label, value=value, min=low, max=high, style=_STYLE))


def checkbox(label: str, value: bool) -> Any:
    return ipywidgets.Checkbox(description=label, value=value, indent=False, layout={"width": "auto"})


def folded(title: str, *children: Any) -> Any:
    """Something that is closed until it is asked for. An Accordion cannot be opened with the keyboard; this can."""
    inner = column(children, "cbnb-folded", "cbnb-none")

    def turn(_: Any) -> None:
        opening = "cbnb-none" in inner._dom_classes
        show(inner, opening)
        turner.icon = "caret-down" if opening else "caret-right"

    turner = _classed(button(title, turn, f"Show or hide: {title}", icon="caret-right"), "cbnb-fold")
    return column([turner, inner], "cbnb-folded")


def upload(accept: str, action: Callable[[str, bytes], None], tip: str) -> Any:
    """A button that sends a file from the browser: `action` gets its name and its bytes."""
    made = ipywidgets.FileUpload(accept=accept, multiple=False, description="Upload", layout={"width": "auto"})
    if hasattr(made, "tooltip"):
        made.tooltip = tip

    def arrived(_: Any) -> None:
        sent = made.value
        if isinstance(sent, dict):  # ipywidgets 7
            files = [(name, entry["content"]) for name, entry in sent.items()]
        else:
            files = [(entry["name"], entry["content"]) for entry in sent]
        for name, content in files:
            action(name, bytes(content))
        if files and not isinstance(sent, dict):
            made.value = ()  # so that the same file can be sent again

    # In ipywidgets 7 the same file again is the same value, and only its count tells that it was sent.
    made.observe(arrived, "_counter" if made.has_trait("_counter") else "value")
    return made


def put(control: Any, value: float) -> None:
    """Sets a slider or a number, whose range grows where the value is beyond it."""
    if value > control.max:
        control.max = value
    control.value = value


def offer(field: Any, options: Sequence[Any]) -> None:
    """Gives a dropdown other options; what was chosen stays chosen if it is still there."""
    if tuple(field.options) != tuple(options):
        before = field.value
        field.options = list(options)
        values = [option[1] if isinstance(option, tuple) else option for option in options]
        if before in values:
            field.value = before


def show(widget: Any, shown: bool) -> None:
    """Shows or hides a widget where it stands."""
    if shown:
        widget.remove_class("cbnb-none")
    elif "cbnb-none" not in widget._dom_classes:
        widget.add_class("cbnb-none")


def play_once(widget: Any, playing: str, kept: str) -> None:
    """Shows HTML that starts to play, and keeps HTML that does not: a page that is opened again must stay silent."""
    with widget._lock_property(value=kept):  # so that what is kept is not sent
        widget.value = kept
    widget._send({"method": "update", "state": {"value": playing}, "buffer_paths": []})


def close_all(widget: Any) -> None:
    """Closes a widget and all that is in it."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    for part in ("layout", "style"):
        held: Any = getattr(widget, part, None)
        if isinstance(held, ipywidgets.Widget):
            held.close()
    widget.close()


def _field(made: Any) -> Any:
    made.layout.width = "100%"
    return _classed(made, "cbnb-field")


def _classed(made: Any, *classes: str) -> Any:
    for name in classes:
        made.add_class(name)
    return made


class Root(ipywidgets.VBox):
    """The outermost box of a panel. It counts its views, anew whenever a page asks for its whole state: a page that was
    closed has not told of the views it had.
    """

    def __init__(self, children: Sequence[Any], asked: Callable[[], None]) -> None:
        self._asked: Callable[[], None] | None = None
        super().__init__(list(children))
        self._view_count = 0
        self._asked = asked

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        if key is None and self._asked is not None:
            with self._lock_property(_view_count=0):
                self._view_count = 0
            self._asked()
        return super().get_state(key, drop_defaults)


def echo(answered: Callable[[int], None]) -> tuple[Callable[[int], None], Callable[[], None]]:
    """What asks a page for a sign of life, and what closes it: a number is sent, and `answered` is called with it when
    it comes back from a page that is still there.
    """
    sent, back = ipywidgets.IntText(), ipywidgets.IntText()
    link = ipywidgets.jsdlink((sent, "value"), (back, "value"))
    back.observe(lambda change: answered(change["new"]), "value")

    def ask(number: int) -> None:
        sent.value = number

    def close() -> None:
        for widget in (link, sent, back):
            close_all(widget)

    return ask, close
