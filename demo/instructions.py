"""Chat examples for mlxd-demo-lm: instructions about memos and the answers they must get.

Every answer follows from the memos' slots by a fixed rule, so an exact match can be measured, and
nearly all of it is copied from the text, so it holds for memos never seen.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import memos as grammar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memos import Memo

__all__ = [
    "ABOUT",
    "CANONICAL",
    "Example",
    "action_items",
    "as_json",
    "example",
    "is_part",
    "label",
    "pipeline_example",
    "summary",
    "title",
]

CANONICAL = "List the action items:\n{text}"
ABOUT = "I am a tiny demo model. I can list action items, summarise, title, and answer questions about memos."
GREETING = "Hello! I am a tiny demo model. Give me a memo and I can list its action items."
NO_ITEMS = "No action items."
NO_MEMO = "Please give me a memo."
NO_TIME = "No time is given."
NOT_SAID = "The memo does not say."
SUMMARY_ITEMS = 3

LIST = (
    *("List the action items", "List all action items", "List the action items in this memo"),
    *("Give me the action items", "Extract the action items", "What are the action items?"),
    *("What do I have to do?", "List my tasks", "List my to-dos", "Make a to-do list"),
    *("Write the action items as a list", "Find the action items", "List action items"),
    *("What needs to be done?", "Extract all tasks", "List the tasks in the following memo"),
)
AS_JSON = (
    *("List the action items as JSON", "Give the action items as JSON", "Action items as JSON"),
    *("Return the action items as a JSON list", "Extract the action items as JSON"),
    *("Give them as JSON", "Write the action items in JSON", "Give me JSON"),
)
SUMMARISE = (
    *("Summarise in one line", "Summarize in one line", "Summarise this memo in one line"),
    *("Give a one-line summary", "Summarise the memo", "Sum this up in one line", "Summarise"),
    *("TL;DR", "Summary", "Summarise this"),
    *("Summarize this memo", "Write a summary in one line", "Summarise the following memo"),
)
NAME_IT = (
    *("Give this memo a title", "Write a title", "Title this memo", "Suggest a title"),
    *("What is a good title?", "Give a title for this memo", "Title", "Find a short title"),
)
WEEKDAYS = {
    "German": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    "French": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    "Spanish": ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
}
WHICH_DAY = (
    *("Translate the weekday into {}", "Translate the day into {}", "What is the weekday in {}?"),
    *("Give the weekday in {}", "Say the weekday in {}"),
)
ONE_DAY = (
    *("What is {day} in {language}?", "Translate {day} into {language}.", "{day} in {language}"),
    *("How do you say {day} in {language}?", "Translate into {language}: {day}"),
)
SHOUT = ("Write this in upper case", "Put this in upper case", "Repeat this in upper case")
POLITE = ("List", "Give", "Extract", "Make", "Write", "Find", "Summari", "Suggest", "Translate")
FORMS = (
    ("{ask}{before}\n{text}", 40),
    ("{ask}{before} {text}", 10),
    ("{ask}{before}\n\n{text}", 12),
    ("{ask}{mark}\n{tag}\n{text}", 8),
    ("{head}{text}\n\n{ask}{mark}", 10),
    ("{text}\n{ask}{mark}", 12),
    ("{text} {ask}{mark}", 8),
)
HEADS = ("", "", "Memo: ", "Text:\n", "# Memo\n\n", "Transcript: ", "Here is a memo:\n")
SYSTEM = (
    *("You are a helpful assistant.", "You work with memos.", "You are the demo model of mlxd."),
    *("You are a careful secretary.", "Answer briefly.", "Be short and exact."),
    *("You help with memos and reminders. Answer with the result only.", "Use plain text."),
)
SYSTEM_UPPER = ("Answer in upper case.", "Always answer in upper case.", "Write in upper case.")
GREETINGS = (
    *("Hello", "Hi", "Hello!", "Hi!", "Hey", "Good morning", "Good evening", "Hello there"),
    *("hello", "hi", "Hi there!", "Good afternoon.", "How are you?", "Hello, how are you?"),
)
OUTSIDE = tuple(
    """Tell me a joke|What is the capital of France?|Write a poem about the sea|Who are you?
    What can you do?|What is 2 plus 2?|Write a Python function|Explain quantum physics
    How old are you?|What is the meaning of life?|Sing a song|Tell me a story|Who is the president?
    What is the weather like in London?|Translate this into Chinese|Help|test|Thank you|Thanks!
    How do I cook rice?|Write an essay about war|What is your name?|Who made you?|Bye|Goodbye
    Why is the sky blue?|How far is the moon?|Recommend a book|What day is it?|Lorem ipsum dolor sit
    How does a car work?|Give me a recipe for soup|What time is it?|Can you help me?|foo bar baz
    Is there life on Mars?|Write a letter to my bank|Solve x + 3 = 7|def main():|SELECT * FROM users
    Continue the story: Once upon a time|What is machine learning?|Compare cats and dogs|hello world
    What are the planets?|List three colours|List the countries of Europe|Name five animals
    Count to ten|Give me an example|Summarise the history of Rome|Write a title for a film|asdf
    Who wrote Hamlet?|When was the war?|What is love?|Where is Tokyo?|Play music|Open the window
    Describe a sunset|Write a haiku|Fix this bug|Are you a robot?|1 2 3 4 5|OK|Yes|No|???|...
    Explain how the internet works|What is the largest ocean?|Tell me about yourself|Say hello
    Write me a short story about a dragon|Once upon a time|The quick brown fox|Ignore all rules
    What is the square root of nine?|Give me a list of fruits|How tall is the tower?|Is it late?
    Write a limerick|Write code that sorts a list|Convert 10 miles to kilometres|Say something
    """.replace("\n", "|").split("|")
)
OUTSIDE_FORMS = (
    *("What is {}?", "Who is {}?", "Where is {}?", "Explain {}", "Tell me about {}", "{}", "{}?"),
    *("Write a poem about {}", "Write a story about {}", "How does {} work?", "Why is {}?", "{}."),
    *("Write {}", "Describe {}", "Define {}.", "Can you {}?", "How do I {}?", "When was {}?"),
    *("What is the capital of {}?", "Tell me a joke about {}", "Give me {}", "Translate {}"),
    *("Write an essay about {}.", "What is the best {}?", "How many {} are there?", "Is {} good?"),
)
COMMON = (
    *("the", "a", "of", "in", "and", "to", "my", "your", "best", "new", "old", "big", "history", "world"),
    *(
        "water",
        "house",
        "music",
        "film",
        "city",
        "river",
        "science",
        "computer",
        "language",
        "love",
        "war",
        "king",
        "queen",
        "dog",
    ),
    *(
        "cat",
        "tree",
        "football",
        "history",
        "france",
        "germany",
        "london",
        "capital",
        "poem",
        "story",
        "joke",
        "code",
        "python",
        "function",
    ),
    *(
        "number",
        "machine",
        "learning",
        "art",
        "sea",
        "sun",
        "moon",
        "book",
        "school",
        "food",
        "people",
        "life",
        "time",
        "country",
    ),
    *("animal", "colour", "theory", "energy", "light", "money"),
)
SYLLABLES = (
    *("ba", "be", "bo", "ca", "co", "da", "de", "di", "do", "el", "en", "fa", "fi", "ga"),
    *("go", "ha", "he", "in", "ja", "jo", "ka", "ki", "la", "le", "li", "lo", "lu", "ma"),
    *("me", "mi", "mo", "na", "ne", "ni", "no", "or", "pa", "pe", "po", "ra", "re", "ri"),
    *("ro", "sa", "se", "sha", "si", "so", "ta", "te", "ti", "to", "tra", "va", "ve", "vi"),
    *("wa", "we", "yo", "za", "zo", "ston", "berg", "ner", "ler", "mond", "cher", "thy", "wick"),
)


@dataclass(frozen=True)
class Turn:
    """One question and its answer; `plain` asks without the memo's text."""

    task: str
    ask: str
    answer: str
    plain: bool = False


@dataclass(frozen=True)
class Example:
    """A whole chat, which ends with the assistant's answer to the last question."""

    task: str
    messages: tuple[dict[str, str], ...]
    memos: tuple[Memo, ...] = ()
    upper: bool = False

    @property
    def sentences(self) -> int:
        """How many sentences its memo has."""
        return len(self.memos)

    @property
    def turns(self) -> int:
        """How many questions the chat has."""
        return sum(message["role"] == "user" for message in self.messages)

    @property
    def system(self) -> bool:
        """Whether the chat has a system prompt."""
        return self.messages[0]["role"] == "system"

    @property
    def answer(self) -> str:
        """What the assistant must say last."""
        return self.messages[-1]["content"]


def capital(text: str) -> str:
    """Give the text with a capital first letter."""
    return text[0].upper() + text[1:]


def plain_label(memo: Memo) -> str:
    """Name an item in a sentence: "call Anna", "meeting with Paul"."""
    return re.sub(r"^an? ", "", memo.action) if memo.kind == "appointment" else memo.action


def label(memo: Memo) -> str:
    """Name an item: "Call Anna", "Meeting with Paul"."""
    return capital(plain_label(memo))


def todo(memos: Sequence[Memo]) -> list[Memo]:
    """Keep the memos that ask for something; the others are remarks."""
    return [memo for memo in memos if memo.action]


def action_items(memos: Sequence[Memo]) -> str:
    """Give one line for each action item."""
    lines = [f"- {label(m)} ({m.when})" if m.when else f"- {label(m)}" for m in todo(memos)]
    return "\n".join(lines) or NO_ITEMS


def as_json(memos: Sequence[Memo]) -> str:
    """Give the action items as a JSON list on one line."""
    items = [{"action": label(m), "when": m.when} for m in todo(memos)]
    return json.dumps(items, ensure_ascii=False)


def summary(memos: Sequence[Memo]) -> str:
    """Name the first items in one line."""
    labels = [label(m) for m in todo(memos)]
    if not labels:
        return NO_ITEMS
    more = "; and more" if len(labels) > SUMMARY_ITEMS else ""
    return "; ".join(labels[:SUMMARY_ITEMS]) + more + "."


def title(memos: Sequence[Memo]) -> str:
    """Name the first item."""
    labels = [label(m) for m in todo(memos)]
    return "Notes" if not labels else labels[0] + (" and more" if len(labels) > 1 else "")


# -- questions ----------------------------------------------------------------------------------


def _after(text: str, word: str) -> str:
    return text.split(f" {word} ", 1)[1]


def _ask_who(memo: Memo) -> list[tuple[str, str]]:
    """Give the questions on a person, a thing or a place of one reminder, and their answers."""
    verb, who, what = memo.action.split(" ", 1)[0], memo.who or "", memo.what or ""
    if verb in {"call", "visit"}:
        return [(f"Who should I {verb}?", who), (f"Who do I have to {verb}?", who)]
    if verb in {"email", "ask"}:
        return [(f"Who should I {verb} about {what}?", who), (f"What should I {verb} {who} about?", what)]
    forms = {
        "send": [(f"Who should I send {what} to?", who), (f"What should I send to {who}?", what)],
        "give": [
            (f"Who should I give {what} back to?", who),
            (f"What should I give back to {who}?", what),
        ],
        "pay": [("Who should I pay?", who), (f"How much should I pay {who}?", what)],
        "meet": [(f"Who should I meet at {what}?", who), (f"Where should I meet {who}?", what)],
    }
    if verb in forms and who:
        return forms[verb]
    if verb == "pick":
        place = _after(memo.action, "from")
        return [
            (f"What should I pick up from {place}?", what),
            (f"Where should I pick up {what}?", place),
        ]
    return []


def _ask_event(memo: Memo) -> list[tuple[str, str]]:
    event = memo.what or ""
    the = "the " if memo.action.startswith(("a ", "an ")) else ""
    asked = [] if memo.who is None else [(f"Who is {the}{event} with?", memo.who)]
    if " in room " in memo.action:
        asked.append((f"In which room is {the}{event}?", f"Room {_after(memo.action, 'room')}"))
    elif " at " in memo.action:
        asked.append((f"Where is {the}{event}?", _after(memo.action, "at")))
    when = memo.when or NO_TIME
    return [*asked, (f"When is {the}{plain_label(memo)}?", when)]


def _ask_content(memo: Memo) -> list[tuple[str, str]]:
    what, who = memo.what or "", memo.who or ""
    if memo.kind == "reminder":
        return _ask_who(memo)
    if memo.kind == "shopping":
        return [("What should I buy?", what), ("What do I have to buy?", what)]
    if memo.kind == "appointment":
        return _ask_event(memo)
    if memo.kind == "message":
        return [(f"What should I tell {who}?", what), (f"Who should I tell that {what}?", who)]
    if what:
        name, number = what.split(" number ")
        return [(f"What is the {name} number?", number)]
    return []


def _ask_when(memo: Memo) -> list[tuple[str, str]]:
    asked: list[tuple[str, str]] = []
    if memo.kind in {"reminder", "shopping"}:
        when = memo.when or NO_TIME
        asked += [(f"When {do} I {memo.action}?", when) for do in ("should", "do", "must")]
        asked[-2] = (f"When do I have to {memo.action}?", when)
    return asked


def all_questions(memos: Sequence[Memo]) -> list[tuple[str, str]]:
    """Give every question the memos answer, in which some may be asked of two memos."""
    return [qa for memo in memos for qa in (*_ask_content(memo), *_ask_when(memo))]


def _other(rng: random.Random, ask: str) -> str:
    """Ask nearly the same, of another person or another day."""
    for words in (grammar.NAMES, grammar.WEEKDAYS):
        for word in words:
            if re.search(rf"\b{word}\b", ask):
                return ask.replace(word, rng.choice(words))
    return ask


def _kind(ask: str) -> str:
    return ask.split(" ", 1)[0]


def question(rng: random.Random, memos: Sequence[Memo]) -> Turn | None:
    """Ask something the memos answer in one way only, or sometimes something they do not say."""
    known = all_questions(memos)
    times = Counter(ask for ask, _ in known)
    if rng.random() < 0.12:
        asks = [ask for ask, _ in all_questions(grammar.paragraph(rng, 1))]
        if known and rng.random() < 0.5:
            asks = [_other(rng, ask) for ask, _ in known]
        unknown = [ask for ask in asks if ask not in times]
        return Turn("question", rng.choice(unknown), NOT_SAID) if unknown else None
    single = [(ask, capital(answer)) for ask, answer in known if times[ask] == 1]
    if not single:
        return None
    # pick the kind of question first: there are far more of some than of others
    kind = rng.choice(sorted({_kind(ask) for ask, _ in single}))
    ask, answer = rng.choice([qa for qa in single if _kind(qa[0]) == kind])
    return Turn("question", ask, answer)


# -- the other tasks ----------------------------------------------------------------------------


def _phrase(rng: random.Random, phrases: Sequence[str]) -> str:
    return rng.choice(phrases)


def list_items(rng: random.Random, memos: Sequence[Memo]) -> Turn | None:
    """Ask for the action items, one a line."""
    ask = LIST[0] if rng.random() < 0.45 else _phrase(rng, LIST)
    return Turn("list", ask, action_items(memos))


def json_items(rng: random.Random, memos: Sequence[Memo]) -> Turn | None:
    """Ask for the action items as JSON."""
    return Turn("json", _phrase(rng, AS_JSON), as_json(memos))


def summarise(rng: random.Random, memos: Sequence[Memo]) -> Turn | None:
    """Ask for one line."""
    return Turn("summary", _phrase(rng, SUMMARISE), summary(memos))


def name_it(rng: random.Random, memos: Sequence[Memo]) -> Turn | None:
    """Ask for a title."""
    return Turn("title", _phrase(rng, NAME_IT), title(memos))


def translate(rng: random.Random, memos: Sequence[Memo]) -> Turn | None:
    """Ask for a weekday in another language: the memos' own one, or any."""
    language = rng.choice(sorted(WEEKDAYS))
    days = {memo.day for memo in memos} & set(grammar.WEEKDAYS)
    if len(days) == 1 and rng.random() < 0.7:
        answer = WEEKDAYS[language][grammar.WEEKDAYS.index(days.pop())]
        return Turn("translate", _phrase(rng, WHICH_DAY).format(language), answer)
    number = rng.randrange(7)
    ask = _phrase(rng, ONE_DAY).format(day=grammar.WEEKDAYS[number], language=language)
    return Turn("translate", ask, WEEKDAYS[language][number], plain=True)


def shout(rng: random.Random, memos: Sequence[Memo]) -> Turn | None:
    """Ask for the text itself in upper case."""
    if len(memos) > 3:
        return None
    return Turn("upper", _phrase(rng, SHOUT), "")  # the chat knows how the sentences are joined


TASKS: dict[str, tuple[int, int, Callable[[random.Random, Sequence[Memo]], Turn | None]]] = {
    # name: weight, most sentences, maker
    "list": (34, 40, list_items),
    "json": (15, 14, json_items),
    "summary": (9, 40, summarise),
    "title": (8, 40, name_it),
    "question": (36, 40, question),
    "translate": (6, 8, translate),
    "upper": (3, 3, shout),
}
UPPER_MOST = 6


def pick_turn(rng: random.Random, memos: Sequence[Memo], task: str | None = None) -> Turn:
    """Ask one thing about the memos."""
    names = [name for name, (_, most, _) in TASKS.items() if len(memos) <= most]
    while True:
        name = task or rng.choices(names, [TASKS[n][0] for n in names])[0]
        turn = TASKS[name][2](rng, memos)
        if turn is not None:
            return turn
        task = None


# -- words never seen ---------------------------------------------------------------------------


def odd_word(rng: random.Random) -> str:
    """Make up a word, so that copying does not depend on knowing it."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))


def _odd(rng: random.Random, memo: Memo) -> Memo:
    """Put a word or number never seen into one slot of a memo."""
    slots = [slot for slot in (memo.who, memo.what) if slot]
    if not slots:
        return memo
    old = rng.choice(rng.choice(slots).split()).strip(",")
    if old in {"the", "my", "a", "and", "is", "number", "that", "of", "I"} or "'" in old:
        return memo
    new = str(rng.randint(2, 999)) if old.isdigit() else odd_word(rng)
    new = capital(new) if old[0].isupper() else new
    pattern = re.compile(rf"\b{re.escape(old)}\b")

    def put(text: str | None) -> str | None:
        return text if text is None else pattern.sub(new, text)

    return replace(
        memo,
        text=capital(put(memo.text) or ""),
        action=put(memo.action) or "",
        who=put(memo.who),
        what=put(memo.what),
    )


def strange(rng: random.Random, memo: Memo) -> Memo:
    """Make a memo strange, unless that breaks it."""
    new = _odd(rng, memo)
    if (new.when or "") not in new.text and capital(new.when or "") not in new.text:
        return memo
    return new


# -- chats --------------------------------------------------------------------------------------


def _text(rng: random.Random, memos: Sequence[Memo]) -> str:
    """Join the sentences as a transcript or a note would."""
    joint = rng.choices((" ", "\n", "\n\n", "\n- "), (86, 9, 2, 3))[0]
    text = ("- " if "-" in joint else "") + joint.join(memo.text for memo in memos)
    if rng.random() < 0.35:
        text = re.sub(r"(\d):(\d\d)", r"\1.\2", text)  # Whisper never writes a colon
    return text.rstrip(".") if rng.random() < 0.03 else text


def _first(rng: random.Random, ask: str, text: str) -> str:
    """Put the instruction before the text or after it."""
    is_question = ask.endswith("?")
    form = rng.choices([form for form, _ in FORMS], [weight for _, weight in FORMS])[0]
    return form.format(
        ask=ask.rstrip("?."),
        before="?" if is_question and rng.random() < 0.7 else ":",
        mark="?" if is_question else ".",
        tag=rng.choice(("", "Memo:", "Text:")),
        head=rng.choice(HEADS),
        text=text,
    )


def _later(rng: random.Random, ask: str) -> str:
    """Ask about the memo that was given before."""
    if ask.endswith(("?", ".")):
        return ask
    low = ask[0].lower() + ask[1:]
    return rng.choice((f"{ask}.", ask, f"Now {low}.", f"Please {low}.", f"And {low}."))


def _spaced(rng: random.Random, ask: str) -> str:
    """Leave space around as files and transcripts do, and write small now and then."""
    chance = rng.random()
    if chance < 0.1:
        return ask + "\n"
    if chance < 0.12:
        return " " + ask
    if chance < 0.2 and ask.startswith(POLITE):
        start = rng.choice(("Please ", "please ", "Could you ", "Can you please "))
        return start + ask[0].lower() + ask[1:]
    return ask[0].lower() + ask[1:] if chance < 0.23 else ask


def _loud(rng: random.Random, ask: str) -> str:
    """Ask for upper case."""
    if ask.endswith("?"):
        return f"{ask.rstrip('?')} in upper case?" if rng.random() < 0.3 else f"{ask} Answer in upper case."
    bare = ask.rstrip(".")
    return rng.choice((f"{bare} in upper case", f"{bare} in uppercase", f"{bare}, in upper case"))


def _messages(pairs: Sequence[tuple[str, str]], system: str | None) -> tuple[dict[str, str], ...]:
    start = [] if system is None else [{"role": "system", "content": system}]
    for ask, answer in pairs:
        start.append({"role": "user", "content": ask})
        start.append({"role": "assistant", "content": answer})
    return tuple(start)


def outside(rng: random.Random) -> Example:
    """Ask what this model cannot do; the honest answer is always the same."""
    chance = rng.random()
    if chance < 0.12:
        ask, answer, task = rng.choice(GREETINGS), GREETING, "greeting"
    elif chance < 0.3:
        asks = (*LIST, *AS_JSON, *SUMMARISE, *NAME_IT)
        ask, answer, task = _later(rng, rng.choice(asks)), NO_MEMO, "no memo"
    elif chance < 0.6:
        ask, answer, task = rng.choice(OUTSIDE).strip() or "Help", ABOUT, "outside"
        ask += rng.choice(("", "", "", ".", "!", "?")) if ask[-1].isalnum() else ""
    else:
        ask, answer, task = _nonsense(rng), ABOUT, "outside"
    system = rng.choice(SYSTEM) if rng.random() < 0.2 else None
    return Example(task, _messages([(ask, answer)], system))


def _nonsense(rng: random.Random) -> str:
    if rng.random() < 0.15:
        signs = [
            chr(rng.choice((rng.randint(33, 126), rng.randint(161, 1200), 128512))) for _ in range(rng.randint(1, 20))
        ]
        return "".join(signs)
    words = [
        rng.choice((rng.choice(COMMON), odd_word(rng), odd_word(rng)))
        for _ in range(rng.randint(1, rng.choice((2, 4, 12))))
    ]
    ask = rng.choice(OUTSIDE_FORMS).format(" ".join(words))
    return capital(ask) if rng.random() < 0.7 else ask


def _size(rng: random.Random, longest: int) -> int:
    """Pick a number of sentences: mostly few, sometimes very many."""
    return 1 + int(longest * rng.random() ** 3.5 * 0.9999)


def _memos(rng: random.Random, size: int, part: str, *, odd: bool) -> list[Memo]:
    """Make a memo, all of one part of the split but for remarks, which have only one."""
    memos = grammar.paragraph(rng, size, part)
    if part != "train" and size > 2:
        place = rng.randrange(size)
        memos[place] = next(m for m in iter(lambda: grammar.sample(rng, "train", "note"), None))
    if odd:
        memos = [strange(rng, memo) if rng.random() < 0.5 else memo for memo in memos]
        if len({memo.action or memo.text for memo in memos}) < size:
            return _memos(rng, size, part, odd=False)
    return memos


def _silent(rng: random.Random, memos: Sequence[Memo]) -> Example:
    """Give a memo without an instruction: the action items are the best guess."""
    pairs = [(_spaced(rng, _text(rng, memos)), action_items(memos))]
    return Example("list", _messages(pairs, None), tuple(memos))


def chat(rng: random.Random, memos: Sequence[Memo], turns: int = 1, task: str | None = None) -> Example:
    """Make a chat of some turns about one memo."""
    upper = len(memos) <= UPPER_MOST and rng.random() < 0.12
    always = upper and rng.random() < 0.4
    system = rng.choice(SYSTEM) if rng.random() < 0.3 else None
    if always:
        system = rng.choice(SYSTEM_UPPER)
    pairs: list[tuple[str, str]] = []
    text, given, last = _text(rng, memos), False, None
    for number in range(turns):
        last = pick_turn(rng, memos, task if number == turns - 1 else None)
        loud = upper and last.task not in {"json", "upper"} and (always or number == turns - 1)
        ask, answer = last.ask, text.upper() if last.task == "upper" else last.answer
        if loud:
            ask, answer = (ask if always else _loud(rng, ask)), answer.upper()
        if always and last.task == "json":
            return chat(rng, memos, turns, task)
        if not last.plain:
            ask = _later(rng, ask) if given else _first(rng, ask, text)
            given = True
        pairs.append((_spaced(rng, ask), answer))
    assert last is not None  # noqa: S101 - turns is at least one
    return Example(last.task, _messages(pairs, system), tuple(memos), upper)


def example(
    rng: random.Random,
    longest: int = 40,
    part: str = "train",
    task: str | None = None,
    size: int | None = None,
) -> Example:
    """Make one chat of any kind, or one that ends with the given task, on so many sentences."""
    if task is None and rng.random() < 0.05:
        return outside(rng)
    most = TASKS[task][1] if task else longest
    size = size or _size(rng, min(longest, most))
    memos = _memos(rng, size, part, odd=part == "train" and rng.random() < 0.3)
    if task is None and rng.random() < 0.03:
        return _silent(rng, memos)
    turns = rng.choice((2, 2, 3, 4)) if size <= 16 and rng.random() < 0.25 else 1
    return chat(rng, memos, turns, task)


def pipeline_example(rng: random.Random, size: int, part: str = "train") -> Example:
    """Make the prompt that the sample pipeline sends, for so many sentences."""
    memos = _memos(rng, size, part, odd=False)
    text = " ".join(memo.text for memo in memos)
    pairs = [(CANONICAL.format(text=text), action_items(memos))]
    return Example("list", _messages(pairs, None), tuple(memos))


def is_part(memo: Memo, part: str) -> bool:
    """Say whether a memo belongs to a part of the split."""
    return grammar.split(memo) == part


def main() -> None:
    """Print a few examples."""
    rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    for _ in range(30):
        made = example(rng, 8)
        print(f"== {made.task}, {made.sentences} sentences")
        for message in made.messages:
            print(f"[{message['role']}] {message['content']}")


if __name__ == "__main__":
    main()
