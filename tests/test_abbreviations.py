"""Abbreviations, units, symbols and capitals are read as English words, and sentences end where they end."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatterbox_nb import abbreviations, capitals, symbols
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.text import TextRules, apply_rules, chunks, normalize_punctuation

PLAIN = TextRules()
SPOKEN = TextRules(
    max_chars=120, lowercase=True, plain_characters=True, abbreviations_as_words=True, digits_as_words=True
)
SAYABLE = set(string.ascii_lowercase + ".,!?'-\" ")
# Words that are short for something also in lower case.
SHORT = {
    *symbols._UNITS,
    *abbreviations._WORDS,
    *abbreviations._COUNTED,
    *abbreviations._LOWER_TAILS,
}
WORDS = st.text(alphabet=string.ascii_lowercase, min_size=1, max_size=8).filter(lambda word: word not in SHORT)
WRITTEN = (
    "Dr. Smith", "Mr. and Mrs. X", "etc.", "e.g.", "i.e.", "vs.", "St. Louis", "No. 5",
    "5 kg", "1 km/h", "20 °C", "3 ft.",
    "Acme Inc.", "U.S.", "U.S.A.", "USB", "FBI's", "PCs", "NASA", "CD-ROM", "A4", "mp3", "3D", "5G", "COVID-19", "B2B",
    "Henry VIII", "World War II", "R&D", "#1", "C++", "50%", "1/2", "5 p.m.", "9 AM", "Jan. 5", "plan B", "HELLO WORLD",
    "$5M", "IT", "X-ray", "O'Brien", "J. R. R. Tolkien", "café", "a.k.a.", "(aside)", "12:30", "and/or", "he/she", "A",
)  # fmt: skip


def spoken(text: str) -> str:
    return apply_rules(text, SPOKEN)


def cut(first: str, second: str) -> list[str]:
    """The chunks of two sentences, with a limit that only just holds the longer one."""
    limit = max(len(spoken(first)), len(spoken(second)))
    return [chunk.text for chunk in chunks(f"{first} {second}", SPOKEN, limit)]


def is_read(*table: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("written", "read"), table)


class TestRules:
    def test_without_the_rules_text_is_left_alone(self) -> None:
        assert apply_rules("Dr. Müller paid 5 kg & the FBI (U.S.).", PLAIN) == "Dr. Müller paid 5 kg & the FBI (U.S.)."

    def test_each_rule_is_one_alone(self) -> None:
        text = "Dr. Müller has 2 PCs (old)."
        assert apply_rules(text, TextRules(abbreviations_as_words=True)) == "Doctor Müller has 2 pee sees (old)."
        assert apply_rules(text, TextRules(plain_characters=True)) == "Dr. Muller has 2 PCs, old."

    def test_a_spec_without_them_has_them_off(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(
            re.sub(r'"(plain_characters|abbreviations_as_words)": \w+,', "", catalog.spec("demo").to_json())
        )
        rules = catalog.read_spec(tmp_path).text
        assert (rules.plain_characters, rules.abbreviations_as_words) == (False, False)

    @given(words=st.lists(WORDS, min_size=1, max_size=12), marks=st.data())
    @settings(deadline=None, max_examples=200)
    def test_plain_text_in_lower_case_is_left_alone(self, words: list[str], marks: st.DataObject) -> None:
        text = " ".join(word + marks.draw(st.sampled_from(("", "", ",", "!", "?", "-" + word))) for word in words) + "."
        assert spoken(text) == text

    @given(parts=st.lists(st.one_of(st.sampled_from(WRITTEN), WORDS, st.sampled_from((".", ",", "?"))), max_size=15))
    @settings(deadline=None, max_examples=300)
    def test_what_was_read_once_is_plain(self, parts: list[str]) -> None:
        text = "start " + " ".join(parts)
        assert not re.search(r"\d|[A-Z]", spoken(text))
        assert not re.search(r"\b[A-Z]{2,}\b", apply_rules(text, TextRules(abbreviations_as_words=True)))
        assert set(normalize_punctuation(spoken(text)).lower()) <= SAYABLE

    @given(parts=st.lists(st.one_of(st.sampled_from(WRITTEN), WORDS), max_size=15))
    @settings(deadline=None, max_examples=200)
    def test_no_word_is_lost_between_abbreviations(self, parts: list[str]) -> None:
        said = iter(re.findall(r"[a-z]+", " ".join(chunk.text for chunk in chunks("start " + " ".join(parts), SPOKEN))))
        for word in ["start", *(part for part in parts if part not in WRITTEN)]:
            assert word in said, f"{word!r} is missing or out of its place"

    @given(text=st.one_of(st.text(max_size=200), st.text(alphabet=string.printable, max_size=80)))
    @example(text="/" * 3000)
    @example(text="9" * 3000)
    @example(text="A" * 3000)
    @example(text="A." * 1500)
    @example(text="1/" * 1500)
    @settings(deadline=None, max_examples=500)
    def test_any_text_is_read_and_no_digit_and_no_capital_is_left(self, text: str) -> None:
        assert not re.search(r"\d|[A-Z]", spoken(text))

    @given(parts=st.lists(st.sampled_from(WRITTEN), min_size=1, max_size=30))
    @settings(deadline=None, max_examples=100)
    def test_no_chunk_is_longer_than_the_limit(self, parts: list[str]) -> None:
        assert max(len(chunk.text) for chunk in chunks(" ".join(parts), SPOKEN)) <= 120


class TestSentences:
    @pytest.mark.parametrize(
        "sentence",
        [
            "Dr. Smith met Mrs. Jones at noon.",
            "Bring fruit, e.g. apples, i.e. food.",
            "I saw Sgt. Pepper vs. Bob.",
            "It took approx. 5 min. to see Mt. Everest.",
            "The U.S. Army is not the U.K. Navy.",
            "Mr. and Mrs. Dursley, of No. 4, Privet Drive.",
            "We stayed at St. Paul's in St. Louis.",
            "He is J. R. R. Tolkien of Acme Corp. in Ft. Worth.",
            "It opens at 5 p.m. Monday, Jan. 5.",
            "Chapter IV of Henry VIII is 3 in. thick.",
        ],
    )
    def test_an_abbreviation_does_not_end_a_sentence(self, sentence: str) -> None:
        second = "USB was there, and then we left."
        assert cut(sentence, second) == [spoken(sentence), spoken(second)]

    @pytest.mark.parametrize(
        "end",
        [
            "at 5 p.m.",
            "in the U.S.",
            "apples, etc.",
            "with Acme Inc.",
            "on Main St.",
            "5 kg.",
            "10 ft.",
            "plan B.",
            "with vitamin C.",
            "in Jan.",
        ],
    )
    def test_an_abbreviation_may_end_one(self, end: str) -> None:
        first, second = f"We were there {end}", "He left us for a while."
        assert cut(first, second) == [spoken(first), spoken(second)]
        assert spoken(first).endswith(".")


class TestAbbreviations:
    @is_read(
        ("Dr. Smith and Dr Jones", "doctor smith and doctor jones"),
        ("Mr. X, Mrs. Y, Ms. Z", "mister ex, missus why, miz zee"),
        ("Prof. Hill", "professor hill"),
        ("MR. SMITH", "mister smith"),
        ("St. James St.", "saint james street."),
        ("12 Main St. Springfield", "twelve main street springfield"),
        ("In St. Louis", "in saint louis"),
        ("on 5th St. in", "on fifth street in"),
        ("9 Ocean Dr. is", "nine ocean drive is"),
        ("Park Ave., Mill Rd. and Sunset Blvd.", "park avenue, mill road and sunset boulevard."),
        ("Sammy Davis Jr. and Sr.", "sammy davis junior and senior."),
        ("Acme Inc., Acme Co. and Acme Corp. Ltd.", "acme incorporated, acme company and acme corporation limited."),
        ("the Dept. of", "the department of"),
        ("Mt. Hood, Ft. Worth", "mount hood, fort worth"),
    )
    def test_titles_streets_and_firms(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("apples, etc.", "apples, et cetera."),
        ("etc., and", "et cetera, and"),
        ("cats vs. dogs vs birds", "cats versus dogs versus birds"),
        ("e.g. this, i.e. that", "for example this, that is that"),
        ("E.g. this", "for example this"),
        ("approx. ten", "approximately ten"),
        ("No. 5", "number five"),
        ("No. Five", "no. five"),
        ("Vol. 2, pp. 3–5", "volume two, pages three to five"),
        ("Max. He left.", "max. he left."),
        ("max. speed", "maximum speed"),
    )
    def test_common_words(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("Jan. 5", "january five"),
        ("5 Dec. 2020", "five december twenty twenty"),
        ("Oct 31", "october thirty one"),
        ("on Mon., in Sept.", "on monday, in september."),
        ("Wed. the 5th", "wednesday the fifth"),
        ("Mon-Fri", "monday to friday"),
        ("under the Sun. He", "under the sun. he"),
        ("I met Jan. He", "i met jan. he"),
    )
    def test_months_and_weekdays(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("5 p.m.", "five pee em."),
        ("5 p.m. sharp", "five pee em sharp"),
        ("9 AM to 5PM", "nine ay em to five pee em"),
        ("10:15 a.m., at", "ten fifteen ay em, at"),
        ("7pm", "seven pee em"),
        ("I am 5", "i am five"),
    )
    def test_halves_of_the_day(self, written: str, read: str) -> None:
        assert spoken(written) == read


class TestUnits:
    @is_read(
        ("1 kg", "one kilogram"),
        ("2 kg", "two kilograms"),
        ("21 kg", "twenty one kilograms"),
        ("1,001 kg", "one thousand and one kilograms"),
        ("1.5km", "one point five kilometers"),
        ("3 cm, 4 mm, 5 g, 6 mg", "three centimeters, four millimeters, five grams, six milligrams"),
        ("1 lb, 2 lbs, 3 oz", "one pound, two pounds, three ounces"),
        ("a 5-kg bag", "a five-kilogram bag"),
        ("1 ft 6 in. tall, 6 ft. of it", "one foot six inches tall, six feet of it"),
        ("5 in the house", "five in the house"),
        ("""5'6" tall""", "five feet six inches tall"),
        ("60 mph, 100 km/h, 10 m/s", "sixty miles per hour, one hundred kilometers per hour, ten meters per second"),
        ("1 km/h", "one kilometer per hour"),
        ("in km/h", "in kilometers per hour"),
        ("16 GB, 1 MB, 2 kB", "sixteen gigabytes, one megabyte, two kilobytes"),
        ("50 Hz, 2 kHz, 3 MHz, 4GHz", "fifty hertz, two kilohertz, three megahertz, four gigahertz"),
        (
            "5 s, 1 s, 300 ms, 2 min, 3 h",
            "five seconds, one second, three hundred milliseconds, two minutes, three hours",
        ),
        ("the 80s", "the eighties"),
        (
            "20 °C, 1°C, 70°F, 90°",
            "twenty degrees celsius, one degree celsius, seventy degrees fahrenheit, ninety degrees",
        ),
        ("-5 °C", "minus five degrees celsius"),
        ("5 m² and 2 cm³", "five square meters and two cubic centimeters"),
        ("50%, 5 % of", "fifty percent, five percent of"),
        ("3–5 kg", "three to five kilograms"),
        ("$5/kg, 5€ a lb", "five dollars per kilogram, five euros a pound"),
        ("$5m, $5K, €3bn", "five million dollars, five thousand dollars, three billion euros"),
        ("10k", "ten thousand"),
    )
    def test_units_in_the_singular_and_the_plural(self, written: str, read: str) -> None:
        assert spoken(written) == read


class TestSymbols:
    @is_read(
        ("R&D, AT&T, Q & A", "ar and dee, ay tee and tee, cue and ay"),
        ("5+3=8", "five plus three equals eight"),
        ("C++ and C#", "see plus plus and see sharp"),
        ("bob@example.com", "bob at example dot com"),
        ("#1 and #fun", "number one and hashtag fun"),
        ("and/or, he/she, TCP/IP", "and or, he or she, tee see pee eye pee"),
        ("24/7, 9/11", "twenty four seven, nine eleven"),
        ("1/2 cup, 2/3, 1 1/2, 2½", "one half cup, two thirds, one and one half, two and one half"),
        ("1/2 tsp. salt, 3/4 lb.", "one half teaspoon salt, three quarters pounds."),
        ("example.com/path", "example dot com slash path"),
        ("3 × 4, 4x4, 2x", "three times four, four by four, two times"),
        ("x <= 5 and y > 3", "x is at most five and y is more than three"),
        ("w/ milk, w/o", "with milk, without"),
        ("snake_case", "snake case"),
    )
    def test_signs(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("café, Ærø, naïve, Straße", "cafe, aero, naive, strasse"),
        ("e\u0301", "e"),
        ("ＵＳＢ", "you ess bee"),
        ("one (two) three", "one, two, three"),
        ("(One.) Two [three].", "one. two, three."),
        ("file(s)", "files"),
        ("①", " one "),
        ("«yes»", '"yes"'),
    )
    def test_characters_become_the_nearest_plain_ones(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @pytest.mark.parametrize("text", ["你好", "안녕", "й", "🙂", "שלום"])
    def test_what_has_no_near_character_stays_for_the_tokenizer_to_judge(self, text: str) -> None:
        assert spoken(text) == text


class TestCapitals:
    def test_the_names_of_the_letters(self) -> None:
        assert capitals.spelled(string.ascii_uppercase) == (
            "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue ar ess tee you vee double you ex why zee"
        )

    @is_read(
        ("USB", "you ess bee"),
        ("the U.S. and the U.S.A.", "the you ess and the you ess ay."),
        ("FBI's", "eff bee eye's"),
        ("PCs, IDs", "pee sees, eye dees"),
        ("CD-ROM", "see dee-rom"),
        ("Ph.D., PhD", "pee aitch dee, pee aitch dee"),
        ("HTML, IEEE, UCLA, ISBN", "aitch tee em ell, eye triple ee, you see ell ay, eye ess bee en"),
        ("the IT team in the US", "the eye tee team in the you ess"),
        ("OpenAI, macOS, iPhone, YouTube", "open ay eye, mac oh ess, eye phone, youtube"),
        ("a.k.a. Bob", "ay kay ay bob"),
        ("OK", "okay"),
    )
    def test_initialisms_are_spelled(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("NASA, NATO, UNESCO, AIDS, LASER", "nasa, nato, unesco, aids, laser"),
        ("NASA's", "nasa's"),
        ("This is NOT what I WANT.", "this is not what i want."),
        ("WARNING", "warning"),
    )
    def test_acronyms_and_stressed_words_are_words(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("HELLO WORLD, HOW ARE YOU", "hello world, how are you"),
        ("STOP IT NOW! DON'T!", "stop it now! don't!"),
        ("MY CAT'S FUR IS WET.", "my cat's fur is wet."),
        ("THE FBI HAS A NEW TV", "the eff bee eye has a new tee vee"),
        ("He said: GET OUT OF MY CAR! She left.", "he said: get out of my car! she left."),
        ("HTML CSS", "aitch tee em ell see ess ess"),
    )
    def test_shouting_is_words(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("A4, mp3, B2B, 3D, 5G", "ay four, em pee three, bee two bee, three dee, five gee"),
        ("COVID-19", "covid-nineteen"),
        ("H₂O, CO2", "aitch two oh, see oh two"),
        ("MP3s in the 1990s, 5th", "em pee threes in the nineteen nineties, fifth"),
        ("vitamin B12", "vitamin bee twelve"),
    )
    def test_letters_beside_digits(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("plan B, vitamin C", "plan bee, vitamin see"),
        ("A dog and I", "a dog and i"),
        ("vitamin A, an A, A or B, from A to Z", "vitamin ay, an ay, ay or bee, from ay to zee"),
        ("X-ray, T-shirt", "ex-ray, tee-shirt"),
        ("O'Brien, D'Angelo, B's", "o'brien, d'angelo, bee's"),
        ("J. R. R. Tolkien, George W. Bush", "jay ar ar tolkien, george double you bush"),
        ("the E. coli", "the ee coli"),
    )
    def test_single_letters(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @is_read(
        ("Henry VIII", "henry the eighth"),
        ("Louis XIV's", "louis the fourteenth's"),
        ("Elizabeth I.", "elizabeth the first."),
        ("Pope John Paul II", "pope john paul the second"),
        ("Elizabeth I love you", "elizabeth i love you"),
        ("World War II, World War I was", "world war two, world war one was"),
        ("Chapter IV, part II, Type I", "chapter four, part two, type one"),
        ("the part I like", "the part i like"),
        ("Rocky IV; II, III", "rocky four; two, three"),
        ("Vol. II", "volume two"),
        ("The IV drip, Malcolm X", "the eye vee drip, malcolm ex"),
    )
    def test_roman_numerals(self, written: str, read: str) -> None:
        assert spoken(written) == read

    @pytest.mark.parametrize("word", ["hello", "strength", "queue", "youth", "unesco", "squirrel", "rhyme", "sixth"])
    def test_words_are_pronounceable(self, word: str) -> None:
        assert capitals.pronounceable(word)

    @pytest.mark.parametrize("word", ["html", "isbn", "espn", "iaea", "oecd", "ymca", "", "usps"])
    def test_initialisms_are_not(self, word: str) -> None:
        assert not capitals.pronounceable(word)
