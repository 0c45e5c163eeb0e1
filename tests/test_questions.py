"""`%tts Are you there?` is speech, although IPython reads such a line as a call for help."""

from __future__ import annotations

import ast

import pytest
from shells import Kernel


def calls(kernel: Kernel, cell: str) -> list[tuple[str, ...]]:
    """What a cell makes of its magics: the name of each and what it is given."""
    tree = ast.parse(kernel.shell.transform_cell(cell))
    return [
        tuple(ast.literal_eval(argument) for argument in node.args)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("run_")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Are you there?",
        "--seed 7 Are you there?",
        "Really??",
        "Don't you know?",
        'Did she say "yes"?',
        "(Are you there?",
        "Costs it $5, {x} or 5 o'clock?",
        "🙂 你好吗?",
        r"A back\slash?",
        "?",
    ],
)
def test_a_line_that_ends_in_a_question_mark_is_spoken(kernel: Kernel, text: str) -> None:
    assert calls(kernel, f"%tts {text}") == [("tts", text)]
    assert calls(kernel, f"take = %tts {text}") == [("tts", text)]
    assert calls(kernel, f"for _ in range(2):\n    %tts {text}\n") == [("tts", text)]


@pytest.mark.parametrize("target", ["take", "takes['a']", "this.take", "größe", "a = b", "take: object"])
def test_the_take_of_a_question_goes_where_it_is_assigned(kernel: Kernel, target: str) -> None:
    code = kernel.shell.transform_cell(f"{target} = %tts Are you there?")
    assert code == f"{target} = get_ipython().run_line_magic('tts', 'Are you there?')\n"


def test_a_question_may_go_on_behind_a_backslash(kernel: Kernel) -> None:
    (found,) = calls(kernel, "%tts Are you \\\nthere?\nprint(1)")
    assert found[1].split() == ["Are", "you", "there?"]


def test_spaces_and_tabs_around_a_question_do_not_matter(kernel: Kernel) -> None:
    for line in ("%tts\tAre you there?", "  %tts   Are you there?  ", ">>> %tts Are you there?"):
        assert calls(kernel, line) == [("tts", "Are you there?")]


def test_every_line_of_a_cell_is_read_by_itself(kernel: Kernel) -> None:
    cell = "%tts Hello.\n%tts Don't you know?\nx = %tts Who's there?\n%tts Bye."
    assert calls(kernel, cell) == [
        ("tts", "Hello."),
        ("tts", "Don't you know?"),
        ("tts", "Who's there?"),
        ("tts", "Bye."),
    ]


def test_a_question_in_a_cell_of_another_magic_is_spoken(kernel: Kernel) -> None:
    (outer,) = calls(kernel, "%%time\n%tts Are you there?")
    assert calls(kernel, outer[2]) == [("tts", "Are you there?")]


@pytest.mark.parametrize("asked", ["%tts?", "%%tts?", "%tts??", "%tts_load?", "print?", "print??", "?print"])
def test_asking_for_help_still_does(kernel: Kernel, asked: str) -> None:
    kind = "pinfo2" if "??" in asked else "pinfo"
    assert calls(kernel, asked) == [(kind, asked.strip("?"))]
    assert calls(kernel, f"%tts Are you there?\n{asked}\n%tts Are you?") == [
        ("tts", "Are you there?"),
        (kind, asked.strip("?")),
        ("tts", "Are you?"),
    ]


@pytest.mark.parametrize("name", ["%tts", "%%tts", "%tts_load", "%tts_info", "%tts_memory", "%tts_unload"])
def test_help_on_a_magic_is_its_options(kernel: Kernel, name: str) -> None:
    assert f"usage: {name}" in kernel.ok(f"{name}?").help


@pytest.mark.parametrize(
    "code",
    [
        'text = """\n%tts Are you there?\n"""\n',
        "# %tts Are you there?\n",
        "text = '%tts Are you there?'\n",
        "x = 17\ny = x %tts\n",
        "def f():\n    '''Do this:\n\n    x = %tts Are you there?\n    '''\n",
    ],
)
def test_what_only_looks_like_a_question_stays_as_it_is(kernel: Kernel, code: str) -> None:
    assert kernel.shell.transform_cell(code) == code


def test_a_remainder_is_no_magic(kernel: Kernel) -> None:
    assert calls(kernel, "x %tts name?") == [("pinfo", "name")]


def test_the_text_of_a_cell_is_never_read_as_help(kernel: Kernel) -> None:
    text = "Are you there?\n%tts Are you?\nx = 1?\n"
    assert calls(kernel, f"%%tts --seed 7\n{text}") == [("tts", "--seed 7", text)]


def test_a_cell_magic_without_a_cell_reaches_us(kernel: Kernel) -> None:
    """IPython's answer would be a UsageError, which nbval does not see."""
    assert calls(kernel, "%%tts") == [("tts", "", "\n")]
    assert calls(kernel, "%%tts --help") == [("tts", "--help", "\n")]
    assert calls(kernel, "%%ttsx") == [("ttsx", "", "")]


def test_a_terminal_still_waits_for_the_cell(kernel: Kernel) -> None:
    assert kernel.shell.check_complete("%%tts --seed 7")[0] == "incomplete"
    assert kernel.shell.check_complete("%%tts --seed 7\nHello.")[0] == "incomplete"
    assert kernel.shell.check_complete("%%tts --seed 7\nHello.\n\n")[0] == "complete"
    assert kernel.shell.check_complete("%tts Are you there?")[0] == "complete"
