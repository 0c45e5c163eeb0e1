"""Text becomes chunks that a model can speak: nothing is lost, nothing is too long, numbers are words."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatterbox_nb.errors import TextError
from chatterbox_nb.text import Chunk, TextRules, apply_rules, chunks, expand, normalize_punctuation

PLAIN = TextRules()
WORDS = TextRules(digits_as_words=True)

LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
FRAGMENTS = st.sampled_from(
    (
        "Hello", "it's", "Dr.", "e.g.", "3.5", "1,000", "U.S.A.", "wait", "—", " - ", "...", "…", "?!", ".", "!", ",",
        ";", ": ", "\n", "\n\n", "\r\n\r\n", "\t", "\u00a0", "\u2028", "\x00", "你好", "世界。", "、", "こんにちは",
        "안녕", "\U0001f469\u200d\U0001f467", "🙂", "e\u0301", "İ", "ß", "שלום", "مرحبا", "٣", "²", "“quoted”",
        LONG_WORD, "x" * 400, "!" * 60,
    )
)  # fmt: skip
ANY_TEXT = st.one_of(
    st.text(max_size=400),
    st.lists(st.one_of(FRAGMENTS, st.text(max_size=12)), max_size=40).map(" ".join),
    st.lists(FRAGMENTS, max_size=40).map("".join),
)
NUMBERS = st.text(alphabet="0123456789.,:%$€£-−()+/' \nsthndrkMBx²₃٣１", max_size=40)


def spoken_characters(text: str) -> str:
    """The letters and digits of a text, in order."""
    return "".join(character for character in text if character.isalnum())


def pieces(text: str, max_chars: int | None = None, rules: TextRules = PLAIN) -> list[str]:
    return [chunk.text for chunk in chunks(text, rules, max_chars)]


class TestChunks:
    @given(text=ANY_TEXT, limit=st.integers(10, 320), lowercase=st.booleans(), digits=st.booleans())
    @example(text="a" + "!" * 300, limit=10, lowercase=False, digits=False)
    @example(text="7" * 300, limit=10, lowercase=False, digits=True)
    @example(text="你好世界" * 90, limit=280, lowercase=False, digits=False)
    @settings(deadline=None, max_examples=200)
    def test_no_chunk_is_longer_than_the_limit_or_without_speech(
        self, text: str, limit: int, lowercase: bool, digits: bool
    ) -> None:
        if not spoken_characters(text):
            return
        for piece in pieces(text, limit, TextRules(lowercase=lowercase, digits_as_words=digits)):
            assert 0 < len(piece) <= limit
            assert piece == piece.strip()
            assert spoken_characters(piece)

    @given(text=ANY_TEXT, limit=st.integers(10, 320))
    @settings(deadline=None, max_examples=200)
    def test_no_letter_and_no_digit_is_lost_or_moved(self, text: str, limit: int) -> None:
        if not spoken_characters(text):
            return
        assert spoken_characters("".join(pieces(text, limit))) == spoken_characters(text)

    @given(text=st.text(alphabet=string.ascii_letters + string.digits + " .,!?\n", max_size=300))
    @settings(deadline=None, max_examples=100)
    def test_no_word_is_lost_when_numbers_are_written_out(self, text: str) -> None:
        """Every word that has no digit in it is there, in order; what stands for a number comes on top."""
        text = f"Start {text}"
        words = iter(re.findall(r"[a-z]+", " ".join(pieces(text, rules=replace(WORDS, lowercase=True)))))
        for word in re.findall(r"\b[a-z]+\b", text.lower()):
            assert word in words, f"{word!r} is missing or out of its place"

    def test_a_short_text_is_one_chunk_without_a_pause(self) -> None:
        assert chunks("Hello. How are you?", PLAIN) == [Chunk("Hello. How are you?", 0.0)]

    def test_sentences_are_packed_into_a_chunk_as_long_as_they_fit(self) -> None:
        assert pieces("One one. Two two. Three three. Four four.", 20) == [
            "One one. Two two.",
            "Three three.",
            "Four four.",
        ]

    def test_a_sentence_of_exactly_the_limit_is_whole(self) -> None:
        assert pieces("Say it now. Then.", 11) == ["Say it now.", "Then."]

    def test_the_limit_is_the_rules_own_unless_another_is_given(self) -> None:
        text = "Some words are here. " * 10
        assert max(map(len, pieces(text, rules=TextRules(max_chars=41)))) == 41
        assert pieces(text, 400, TextRules(max_chars=41)) == [text.strip()]

    def test_the_limit_holds_after_numbers_became_words(self) -> None:
        assert pieces("It was 777777.", 30, WORDS) == [
            "It was seven hundred and",
            "seventy seven thousand seven",
            "hundred and seventy seven.",
        ]

    @pytest.mark.parametrize(
        "sentence",
        [
            "Dr. Smith met Mrs. Jones at noon.",
            "Bring fruit, e.g. apples, i.e. food.",
            "The U.S. is large and J. R. R. Tolkien was not from there.",
            "Pi is about 3.14 and e is about 2.72.",
            "Mr. and Mrs. Dursley, of No. 4, Privet Drive.",
            "It opens at 5 p.m. on Mondays.",
        ],
    )
    def test_an_abbreviation_does_not_end_a_sentence(self, sentence: str) -> None:
        """With a limit that only just holds the longer of two sentences, the cut is between them."""
        assert pieces(f"{sentence} Then we all left together.", max(len(sentence), 30)) == [
            sentence,
            "Then we all left together.",
        ]

    @pytest.mark.parametrize("mark", [",", ";", ":", " —", " –"])
    def test_a_sentence_that_is_too_long_is_cut_after_a_clause(self, mark: str) -> None:
        assert pieces(f"When the rain had stopped{mark} we went outside to play.", 30) == [
            f"When the rain had stopped{mark}",
            "we went outside to play.",
        ]

    def test_a_clause_that_is_too_long_is_cut_between_words(self) -> None:
        assert pieces("one two three four five six seven", 14) == ["one two three", "four five six", "seven"]

    def test_a_word_that_is_too_long_is_cut_anywhere(self) -> None:
        assert pieces("abcdefghijklmnopqrstuvwxyz", 10) == ["abcdefghij", "klmnopqrst", "uvwxyz"]

    def test_a_rest_of_bare_punctuation_is_not_spoken(self) -> None:
        assert pieces("Noooooooo" + "!" * 25, 10) == ["Noooooooo!"]

    def test_a_sentence_of_bare_punctuation_is_not_spoken(self) -> None:
        assert pieces("Well.\n\n* * *\n\nGood.") == ["Well.", "Good."]

    def test_line_breaks_and_spaces_within_a_paragraph_are_one_space(self) -> None:
        assert pieces("Hello\n  there,\tmy\u00a0friend.") == ["Hello there, my friend."]

    @pytest.mark.parametrize("blank", ["\n\n", "\n \t\n", "\r\n\r\n", "\n\n\n\n"])
    def test_a_blank_line_separates_paragraphs(self, blank: str) -> None:
        assert chunks(f"One.{blank}Two.", PLAIN) == [Chunk("One.", 0.5), Chunk("Two.", 0.0)]

    def test_pauses_are_short_in_a_paragraph_long_after_it_and_none_at_the_end(self) -> None:
        rules = TextRules(max_chars=12, sentence_pause=0.2, paragraph_pause=0.7)
        assert chunks("First one. Second one.\n\nThird one. Fourth one.", rules) == [
            Chunk("First one.", 0.2),
            Chunk("Second one.", 0.7),
            Chunk("Third one.", 0.2),
            Chunk("Fourth one.", 0.0),
        ]

    def test_the_last_pause_is_none_also_where_unspeakable_paragraphs_follow(self) -> None:
        assert chunks("Good bye.\n\n***\n\n", PLAIN) == [Chunk("Good bye.", 0.0)]

    @pytest.mark.parametrize("text", ["", " ", "\n\n", "\t\r\n"])
    def test_no_text_is_an_error_that_says_where_to_write_it(self, text: str) -> None:
        with pytest.raises(TextError, match=r"There is no text to speak.*%%tts"):
            chunks(text, PLAIN)

    @pytest.mark.parametrize("text", ["...", "?!", "—", "🙂", "*\n\n*"])
    def test_text_without_letters_and_digits_is_an_error_that_shows_it_on_one_line(self, text: str) -> None:
        with pytest.raises(TextError, match="no letter and no digit") as caught:
            chunks(text, PLAIN)
        assert " ".join(text.split()) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_long_unspeakable_text_is_shown_in_short(self) -> None:
        with pytest.raises(TextError, match=r"'!{39}…'"):
            chunks("!" * 5000, PLAIN)

    @pytest.mark.parametrize("limit", [9, 0, -1])
    def test_a_limit_below_ten_characters_is_an_error(self, limit: int) -> None:
        with pytest.raises(TextError, match=rf"A chunk of {limit} characters is too short.*10"):
            chunks("Hello.", PLAIN, limit)

    def test_half_a_character_is_an_error_that_says_where_it_is(self) -> None:
        """A lone surrogate: what `errors="surrogateescape"` leaves of bytes in another encoding."""
        with pytest.raises(TextError, match=r"Character 4 of the text is half of one \(U\+DCE9\)"):
            chunks(b"Caf\xe9.".decode("utf-8", "surrogateescape"), PLAIN)


class TestRules:
    def test_text_is_left_alone_unless_the_rules_say_otherwise(self) -> None:
        assert apply_rules("On May 5th I paid $3.50, OK?", PLAIN) == "On May 5th I paid $3.50, OK?"

    def test_lower_case(self) -> None:
        assert apply_rules("HELLO Ärger", TextRules(lowercase=True)) == "hello ärger"

    @pytest.mark.parametrize(
        ("tokens", "budget"),
        [(0, 100), (1, 110), (30, 400)],
    )
    def test_the_budget_is_a_base_and_so_much_for_each_text_token(self, tokens: int, budget: int) -> None:
        assert TextRules(budget_base=100, budget_per_text_token=10.0).budget(tokens) == budget

    def test_the_budget_is_a_whole_number(self) -> None:
        budget = TextRules(budget_base=7, budget_per_text_token=2.5).budget(3)
        assert (budget, type(budget)) == (14, int)


class TestDigitsAsWords:
    @given(text=st.one_of(NUMBERS, ANY_TEXT))
    @example(text=".5")
    @example(text="9" * 5000)
    @example(text="0." + "1" * 5000)
    @example(text="$" + "9" * 5000)
    @example(text="9" * 5000 + "th")
    @settings(deadline=None, max_examples=500)
    def test_any_text_is_read_and_no_digit_is_left(self, text: str) -> None:
        assert not re.search(r"\d", apply_rules(text, WORDS))

    @given(number=st.integers(0, 10**12 - 1))
    @settings(deadline=None, max_examples=100)
    def test_thousands_separators_change_nothing_but_a_year(self, number: int) -> None:
        if number not in range(1100, 2100):
            assert apply_rules(f"{number:,}", WORDS) == apply_rules(str(number), WORDS)

    @given(text=st.text(alphabet=st.characters(exclude_categories=["Nd", "No", "Cs"]), max_size=80))
    @settings(deadline=None, max_examples=100)
    def test_text_without_numbers_is_left_alone(self, text: str) -> None:
        assert apply_rules(text, WORDS) == text

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("0", "zero"),
            ("12", "twelve"),
            ("21", "twenty one"),
            ("342", "three hundred and forty two"),
            ("1,000,000", "one million"),
            ("1,000,", "one thousand,"),
            ("1,2,3", "one,two,three"),
            ("12, 13", "twelve, thirteen"),
            ("1,001,001,001", "one billion one million one thousand and one"),
        ],
    )
    def test_whole_numbers(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("3.14", "three point one four"),
            ("1.10", "one point one zero"),
            ("0.05", "zero point zero five"),
            ("1,234.5", "one thousand two hundred and thirty four point five"),
            (".5", "point five"),
            ("3.5.", "three point five."),
            ("It is 5.", "It is five."),
            ("5..6", "five..six"),
            ("0.12345678901234", "zero point one two three four five six seven eight nine zero one two three four"),
        ],
    )
    def test_decimals_are_read_digit_by_digit_and_full_stops_stay(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("1.2.3", "one point two point three"),
            ("v2.10.0.", "v two point ten point zero."),
            ("127.0.0.1", "one hundred and twenty seven point zero point zero point one"),
        ],
    )
    def test_versions_and_addresses(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("-5", "minus five"),
            ("−5", "minus five"),
            ("(-0.5)", "(minus zero point five)"),
            ("-$5", "minus five dollars"),
            ("5-6", "five-six"),
            ("top-10", "top-ten"),
        ],
    )
    def test_a_minus_is_read_and_a_hyphen_is_not(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("007", "zero zero seven"),
            ("00", "zero zero"),
            ("1234567890123", "one two three four five six seven eight nine zero one two three"),
        ],
    )
    def test_leading_zeros_and_very_long_numbers_are_read_digit_by_digit(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("1st", "first"),
            ("2nd, 3rd and 4th.", "second, third and fourth."),
            ("the 21st-century", "the twenty first-century"),
            ("1,000th", "one thousandth"),
            ("1990th", "one thousand nine hundred and ninetieth"),
            ("0th", "zeroth"),
            ("1.5th", "one point five th"),
            ("1234567890123rd", "one two three four five six seven eight nine zero one two three rd"),
        ],
    )
    def test_ordinals(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("50%", "fifty percent"),
            ("99.9 %", "ninety nine point nine percent"),
            ("2000%", "two thousand percent"),
            ("1%.", "one percent."),
        ],
    )
    def test_percentages(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("$1", "one dollar"),
            ("$0", "zero dollars"),
            ("$2", "two dollars"),
            ("$1.00", "one dollar"),
            ("$1.01", "one dollar and one cent"),
            ("$3.50.", "three dollars and fifty cents."),
            ("£0.50", "fifty pence"),
            ("£0.01", "one penny"),
            ("$.50", "fifty cents"),
            ("$1,234.56", "one thousand two hundred and thirty four dollars and fifty six cents"),
            ("$1990", "one thousand nine hundred and ninety dollars"),
            ("$1.5", "one point five dollars"),
            ("$1.005", "one point zero zero five dollars"),
            ("$5 million", "five million dollars"),
            ("$2.5M", "two point five million dollars"),
            ("£10k", "ten thousand pounds"),
            ("€3bn", "three billion euros"),
            ("€ 5", "five euros"),
            ("5€", "five euros"),
            ("5 € each", "five euros each"),
            ("5 $10 bills", "five ten dollars bills"),
            ("12345,678€", "twelve thousand three hundred and forty five,six hundred and seventy eight euros"),
        ],
    )
    def test_money(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("1990", "nineteen ninety"),
            ("1905", "nineteen oh five"),
            ("2024.", "twenty twenty four."),
            ("2005", "two thousand and five"),
            ("1,990", "one thousand nine hundred and ninety"),
            ("1066", "one thousand and sixty six"),
            ("the 1990s", "the nineteen nineties"),
            ("the '80s", "the 'eighties"),
            ("1800s", "eighteen hundreds"),
            ("6s", "sixes"),
        ],
    )
    def test_years_and_decades(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("12:30", "twelve thirty"),
            ("9:05 am", "nine oh five am"),
            ("at 3:00.", "at three o'clock."),
            ("10:15pm", "ten fifteen pm"),
            ("16:9", "sixteen:nine"),
            ("1:75", "one:seventy five"),
            ("12:30:45", "twelve:thirty:forty five"),
        ],
    )
    def test_times(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("7pm", "seven pm"),
            ("MP3", "MP three"),
            ("x2y", "x two y"),
            ("1e9", "one e nine"),
            ("第5章", "第 five 章"),
            ("$5$6", "five dollars six dollars"),
        ],
    )
    def test_words_are_kept_apart_from_letters(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("٣", "three"),
            ("١٢:٣٠", "twelve thirty"),
            ("１２", "twelve"),
            ("٠٧", "zero seven"),
            ("𝟏𝟎", "ten"),
            ("x²", "x two"),
            ("10²", "ten two"),
            ("H₂O", "H two O"),
            ("¹⁰% of ²nd", "ten percent of second"),
        ],
    )
    def test_digits_of_other_scripts_and_raised_ones_are_digits(self, written: str, read: str) -> None:
        assert apply_rules(written, WORDS) == read

    @pytest.mark.parametrize("character", ["½", "Ⅳ", "①", "三"])
    def test_other_number_signs_stay_for_the_tokenizer_to_judge(self, character: str) -> None:
        assert apply_rules(character, WORDS) == character


@pytest.fixture(scope="module")
def punc_norm() -> Callable[[str], str]:
    """The package's own."""
    from chatterbox_nb.checkpoint.reference import import_package

    import_package()
    from chatterbox.tts import punc_norm as own

    return own


class TestNormalizePunctuation:
    @pytest.mark.parametrize(
        ("text", "normal"),
        [
            ("hello", "Hello."),
            ("Wait... what?", "Wait,  what?"),
            ("a  b\n c", "A b c."),
            ("“Yes” — he said; ‘no’: fine…", "\"Yes\" - he said,  'no', fine,"),
            ("One - two", "One, two."),
            ("So ,", "So,"),
            ("Why?", "Why?"),
            (" ", "."),
        ],
    )
    def test_it_does_what_the_package_does(self, punc_norm: Callable[[str], str], text: str, normal: str) -> None:
        assert normalize_punctuation(text) == normal == punc_norm(text)

    @given(data=st.data())
    @settings(deadline=None, max_examples=500)
    def test_it_is_the_packages_on_any_text(self, punc_norm: Callable[[str], str], data: st.DataObject) -> None:
        marks = st.text(alphabet="ab .,:;-—–…“”‘’!?ßéǆ\n\t", min_size=1, max_size=30)
        text = data.draw(st.one_of(marks, ANY_TEXT.filter(bool)))
        assert normalize_punctuation(text) == punc_norm(text)


class Telltale:
    """An object that would show if anything but `str` were called on it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")

    def __str__(self) -> str:
        return "told"


NAMES: Mapping[str, Any] = {"name": "Ada", "count": 3, "price": 2.5, "braces": "{name}", "thing": Telltale()}


class TestExpand:
    @pytest.mark.parametrize(
        ("text", "expanded"),
        [
            ("Hello {name}.", "Hello Ada."),
            ("{count} at { price }", "3 at 2.5"),
            ("{name}{name}", "AdaAda"),
            ("no braces", "no braces"),
            ("", ""),
            ("{{name}}", "{name}"),
            ("{{{name}}}", "{Ada}"),
            ("{{}}", "{}"),
            ("a }} b {{ c", "a } b { c"),
            ("{thing}", "told"),
        ],
    )
    def test_names_become_values_and_doubled_braces_single_ones(self, text: str, expanded: str) -> None:
        assert expand(text, NAMES) == expanded

    def test_braces_in_a_value_are_spoken_as_they_are(self) -> None:
        assert expand("{braces}", NAMES) == "{name}"

    def test_an_unknown_name_is_an_error_with_the_nearest_one(self) -> None:
        with pytest.raises(TextError, match=r"There is no variable 'nmae' to put into the text\. Did you mean name\?"):
            expand("Hello {nmae}.", NAMES)

    @pytest.mark.parametrize("text", ["{1 + 1}", "{name.upper()}", "{name!r}", "{count:03d}", "{thing.x}", "{name[0]}"])
    def test_nothing_is_evaluated(self, text: str) -> None:
        with pytest.raises(TextError, match="There is no variable"):
            expand(text, NAMES)

    @pytest.mark.parametrize(("text", "brace"), [("a { b", "{"), ("a } b", "}"), ("{a{name}", "{"), ("{{name}", "}")])
    def test_a_brace_without_a_partner_is_an_error_that_says_how_to_write_it(self, text: str, brace: str) -> None:
        with pytest.raises(TextError, match=re.escape(f"A single '{brace}' in the text. Write '{brace * 2}'")):
            expand(text, NAMES)

    @pytest.mark.parametrize("text", ["{}", "{ }"])
    def test_an_empty_pair_of_braces_is_an_error(self, text: str) -> None:
        with pytest.raises(TextError, match=r"An empty pair of braces"):
            expand(text, NAMES)

    def test_a_whole_paragraph_in_braces_is_shown_in_short_on_one_line(self) -> None:
        with pytest.raises(TextError) as caught:
            expand("{" + "json \n" * 100 + "}", NAMES)
        assert len(str(caught.value)) < 120
        assert "\n" not in str(caught.value)

    @given(text=st.text(max_size=60))
    @settings(deadline=None)
    def test_doubling_the_braces_gives_any_text_back(self, text: str) -> None:
        assert expand(text.replace("{", "{{").replace("}", "}}"), {}) == text
