"""The small world both demo models are trained in: spoken memos.

One seeded grammar of reminders, shopping lists, appointments, messages and plain notes. Every
memo carries its slots, so the speech model learns the text and the language model learns what the
text means. Only the standard library is used.

What may be trained on is decided by hashes, not by files: see `split`.
"""

from __future__ import annotations

import hashlib
import math
import random
import sys
from dataclasses import dataclass
from functools import cache

__all__ = [
    "KINDS",
    "NAMES",
    "WEEKDAYS",
    "Memo",
    "count",
    "generate",
    "held_out",
    "paragraph",
    "sample",
    "split",
    "vocabulary",
]

KINDS = ("reminder", "shopping", "appointment", "message", "note")
WEIGHTS = (40, 16, 18, 12, 14)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NAMES = (
    *(
        "Anna",
        "Paul",
        "Maria",
        "Peter",
        "Julia",
        "David",
        "Emma",
        "Thomas",
        "Laura",
        "Simon",
        "Sophie",
        "Martin",
        "Alice",
        "Daniel",
        "Helen",
        "Robert",
        "Nina",
        "Oliver",
        "Clara",
        "Victor",
        "Grace",
        "Henry",
        "Ruth",
        "Leo",
        "Susan",
        "Frank",
        "Irene",
        "Oscar",
        "Diana",
        "Marcus",
    ),
    *(),
)
PEOPLE = (
    *NAMES,
    *("my sister", "my brother", "my mother", "my father", "my boss", "my neighbor"),
    *("the dentist", "the doctor", "the plumber", "the landlord", "the teacher", "the lawyer"),
)
TOPICS = tuple(
    f"the {topic}"
    for topic in (
        *("budget", "contract", "garden", "holiday", "invoice", "party", "project", "trip"),
        *("car", "heating", "insurance", "kitchen", "wedding", "new office"),
    )
)
DOCUMENTS = tuple(
    f"the {thing}"
    for thing in (
        *("report", "photos", "slides", "tickets", "address", "recipe", "contract", "invoice"),
        *("keys", "list", "letter", "package"),
    )
)
THINGS = tuple(
    f"the {thing}"
    for thing in (
        *("books", "ladder", "keys", "camera", "umbrella", "drill", "bike", "suitcase", "tent"),
        *("package", "guitar"),
    )
)
PLACES = tuple(
    f"the {place}"
    for place in (
        *("library", "bank", "station", "airport", "pharmacy", "bakery", "post office", "school"),
        *("garage", "hotel", "museum", "market"),
    )
)
CHORES = (
    *("water the plants", "charge the camera", "pay the rent", "clean the kitchen"),
    *("renew my passport", "take out the trash", "feed the cat", "walk the dog"),
    *("wash the car", "fix the window", "print the tickets", "pack the suitcase"),
    *("cancel the subscription", "check the heating", "order a new battery", "book a flight"),
    *("book a hotel", "back up the computer", "sign the contract", "return the library books"),
    *("finish the report", "update the website", "change the light bulb", "paint the fence"),
)
ITEMS = (
    *("milk", "bread", "butter", "cheese", "rice", "coffee", "tea", "sugar", "salt", "honey"),
    *("yogurt", "pasta", "chicken", "fish", "soap", "toothpaste", "paper towels", "orange juice"),
    *("apples", "bananas", "tomatoes", "potatoes", "onions", "carrots", "lemons", "mushrooms"),
    *("cat food", "olive oil", "chocolate", "spinach"),
)
COUNTED = ("eggs", "apples", "bananas", "lemons", "onions", "batteries", "candles", "envelopes")
MEASURED = (
    *("bottles of water", "bottles of milk", "bags of rice", "boxes of tea", "cans of beans"),
    *("jars of honey", "bags of flour", "boxes of cereal", "cans of soup", "kilos of potatoes"),
)
EVENTS = ("meeting", "lunch", "dinner", "breakfast", "interview", "rehearsal", "coffee")
BOOKINGS = (
    *("dentist appointment", "doctor's appointment", "haircut", "piano lesson", "yoga class"),
    *("eye test", "swimming lesson", "parents' evening", "job interview", "driving lesson"),
)
FACTS = (
    *("the train is late", "the meeting is cancelled", "dinner is ready", "the car is fixed"),
    *("I will be late", "I found the keys", "the package has arrived", "the door is open"),
    *("the party is at my house", "the tickets are sold out", "I cannot come", "the flight is on"),
    *("the contract is signed", "I left the keys at home", "the heating works again"),
    *("the shop is closed",),
)
REMARKS = (
    *("The weather is beautiful today", "The meeting went well", "It was a long day"),
    *("I had a great weekend", "The new office is very quiet", "The train was full this morning"),
    *("The coffee here is excellent", "I slept very well last night", "The garden looks lovely"),
    *("The kids are doing fine", "I really liked the museum", "It is raining again"),
    *("The movie last night was funny", "Dinner was delicious", "The traffic was terrible"),
    *("My back feels much better", "The new neighbors are friendly", "That is all for now"),
    *("This is a memo for the week", "Here are my notes for today", "I am on my way home"),
)
NUMBERED = (
    *("room", "gate", "platform", "seat", "locker", "bus", "page"),
    *("apartment", "parking space", "table"),
)
ORDERS = (
    *("Remind me to {}.", "Please remind me to {}.", "Don't forget to {}.", "I need to {}."),
    *("I have to {}.", "Remember to {}.", "I must {}.", "I should {}.", "Please {}."),
    *("Also, remind me to {}.", "And don't forget to {}.", "Also, I need to {}.", "{}."),
)
LEADS = ("{}, remind me to {}.", "{}, I need to {}.", "{}, I have to {}.", "{}, please {}.")
SHOPPING = (
    *("Buy {}.", "Please buy {}.", "We need {}.", "Get {}.", "I need to buy {}."),
    *("Remind me to buy {}.", "Don't forget to buy {}.", "Also, buy {}."),
)
LISTS = ("Add {} to the shopping list.", "Put {} on the shopping list.")
DIARY = (
    *("I have {}.", "There is {}.", "Put {} in the calendar.", "Schedule {}."),
    *("Also, I have {}.", "Remember that I have {}."),
)
TELLS = ("Tell {} that {}.", "Please tell {} that {}.", "Let {} know that {}.", "Also, tell {} that {}.")
HELD_OUT_SHARE = 40
AMOUNTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 90)
MOST_ITEMS = 3


@dataclass(frozen=True)
class Memo:
    """One spoken sentence and what it means.

    `text` is the sentence as a transcript prints it. `action` is what is to be done, without the
    time ("call Anna"), and empty for a note. `who` is a person, `what` a thing, topic or event,
    `when` the time in words ("Friday at 3 pm") made of `day` and `time`.
    """

    text: str
    kind: str
    action: str
    who: str | None = None
    what: str | None = None
    when: str | None = None
    day: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class _Task:
    action: str
    who: str | None
    what: str | None


@dataclass(frozen=True)
class _When:
    phrase: str
    when: str | None
    day: str | None
    time: str | None


@cache
def _times() -> tuple[str, ...]:
    hours = [(hour, "am") for hour in range(6, 12)] + [(hour, "pm") for hour in range(1, 10)]
    minutes = ("", ":15", ":30", ":45")
    return ("noon", *(f"{hour}{minute} {half}" for hour, half in hours for minute in minutes))


@cache
def _whens() -> dict[str, tuple[_When, ...]]:
    """Give every way to say when, by shape, so that each shape can be picked as often."""
    days, exact, parts = [], [], []
    for day in (*WEEKDAYS, "today", "tomorrow"):
        said = f"on {day}" if day in WEEKDAYS else day
        days.append(_When(said, day, day, None))
        exact += [_When(f"{said} at {t}", f"{day} at {t}", day, t) for t in _times()]
        if day != "today":
            parts += [
                _When(f"{said} {part}", f"{day} {part}", day, part) for part in ("morning", "afternoon", "evening")
            ]
    never = (_When("", None, None, None),)
    return {"none": never, "day": tuple(days), "exact": tuple(exact), "part": tuple(parts)}


@cache
def _tasks() -> dict[str, tuple[_Task, ...]]:
    """Give every errand of a reminder, by verb."""
    people, task = PEOPLE, _Task
    return {
        "call": tuple(task(f"call {who}", who, None) for who in people),
        "visit": tuple(task(f"visit {who}", who, None) for who in people),
        "email": tuple(task(f"email {p} about {t}", p, t) for p in people for t in TOPICS),
        "ask": tuple(task(f"ask {p} about {t}", p, t) for p in people for t in TOPICS),
        "send": tuple(task(f"send {p} {d}", p, d) for p in people for d in DOCUMENTS),
        "give": tuple(task(f"give {t} back to {p}", p, t) for p in people for t in THINGS),
        "pay": tuple(task(f"pay {p} {n} dollars", p, f"{n} dollars") for p in people for n in AMOUNTS),
        "pick up": tuple(
            task(f"pick up {what} from {place}", None, what)
            for place in PLACES
            for what in (*THINGS, "the tickets", "my mother", "the kids")
        ),
        "meet": tuple(task(f"meet {p} at {place}", p, place) for p in people for place in PLACES),
        "table": tuple(task(f"book a table for {n}", None, f"a table for {n}") for n in range(2, 13)),
        "chore": tuple(task(chore, None, chore.split(" ", 1)[1]) for chore in CHORES),
    }


@cache
def _events() -> dict[str, tuple[_Task, ...]]:
    """Give every calendar entry, with its article, by shape."""
    plain = {"lunch", "dinner", "breakfast", "coffee"}
    withs = [
        (event if event in plain else f"{'an' if event[0] in 'aeiou' else 'a'} {event}", event) for event in EVENTS
    ]
    return {
        "with": tuple(_Task(f"{said} with {p}", p, e) for said, e in withs for p in PEOPLE),
        "at": tuple(_Task(f"{said} with {p} at {place}", p, e) for said, e in withs for p in NAMES for place in PLACES),
        "room": tuple(_Task(f"a meeting with {p} in room {n}", p, "meeting") for p in NAMES for n in range(1, 41)),
        "booking": tuple(_Task(f"{'an' if b[0] == 'e' else 'a'} {b}", None, b) for b in BOOKINGS),
    }


@cache
def _goods() -> tuple[str, ...]:
    numbers = range(2, 13)
    return (
        *ITEMS,
        *(f"{number} {noun}" for noun in COUNTED for number in numbers),
        *(f"{number} {noun}" for noun in MEASURED for number in numbers),
    )


@cache
def _remarks() -> tuple[_Task, ...]:
    numbers = [
        _Task(f"The {noun} number is {n}", None, f"{noun} number {n}") for noun in NUMBERED for n in range(1, 100)
    ]
    return (*(_Task(remark, None, None) for remark in REMARKS), *numbers)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _memo(kind: str, text: str, task: _Task, when: _When) -> Memo:
    return Memo(_capital(text), kind, task.action, task.who, task.what, when.when, when.day, when.time)


def _pick_when(rng: random.Random, shapes: tuple[str, ...]) -> _When:
    return rng.choice(_whens()[rng.choice(shapes)])


def _reminder(rng: random.Random) -> Memo:
    task = rng.choice(_tasks()[rng.choice(tuple(_tasks()))])
    when = _pick_when(rng, ("none", "day", "exact", "exact", "exact", "part"))
    if when.phrase and rng.random() < 0.15:
        text = rng.choice(LEADS).format(_capital(when.phrase), task.action)
    else:
        text = rng.choice(ORDERS).format(f"{task.action} {when.phrase}".strip())
    return _memo("reminder", text, task, when)


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _good(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(ITEMS)
    return f"{rng.randint(2, 12)} {rng.choice((*COUNTED, *MEASURED))}"


def _shopping(rng: random.Random) -> Memo:
    goods: list[str] = []
    for _ in range(rng.randint(1, MOST_ITEMS)):
        good = _good(rng)
        nouns = {other.split(" ", 1)[-1] if other[0].isdigit() else other for other in goods}
        if (good.split(" ", 1)[-1] if good[0].isdigit() else good) not in nouns:
            goods.append(good)
    listed = _join(goods)
    task = _Task(f"buy {listed}", None, listed)
    if rng.random() < 0.25:
        when = _whens()["none"][0]
        return _memo("shopping", rng.choice(LISTS).format(listed), task, when)
    when = _pick_when(rng, ("none", "none", "day", "part", "exact"))
    text = rng.choice(SHOPPING).format(f"{listed} {when.phrase}".strip())
    return _memo("shopping", text, task, when)


def _appointment(rng: random.Random) -> Memo:
    event = rng.choice(_events()[rng.choice(tuple(_events()))])
    when = _pick_when(rng, ("day", "part", "exact", "exact", "exact"))
    text = rng.choice(DIARY).format(f"{event.action} {when.phrase}")
    if rng.random() < 0.2:
        text = f"{_capital(when.phrase)}, I have {event.action}."
    return _memo("appointment", text, event, when)


def _message(rng: random.Random) -> Memo:
    who, fact = rng.choice(PEOPLE), rng.choice(FACTS)
    task = _Task(f"tell {who} that {fact}", who, fact)
    return _memo("message", rng.choice(TELLS).format(who, fact), task, _whens()["none"][0])


def _note(rng: random.Random) -> Memo:
    remark = _Task(rng.choice(REMARKS), None, None) if rng.random() < 0.5 else rng.choice(_remarks())
    never = _whens()["none"][0]
    return Memo(f"{remark.action}.", "note", "", None, remark.what, never.when, None, None)


_MAKERS = {
    "reminder": _reminder,
    "shopping": _shopping,
    "appointment": _appointment,
    "message": _message,
    "note": _note,
}


def generate(rng: random.Random, kind: str | None = None) -> Memo:
    """Make one memo, of the given kind or of any; it may be a held-out one."""
    return _MAKERS[kind or rng.choices(KINDS, WEIGHTS)[0]](rng)


def _bucket(*parts: str | None) -> int:
    digest = hashlib.sha256("\x1f".join(part or "" for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE


def split(memo: Memo) -> str:
    """Say where a memo belongs: "train", "combination" or "sentence".

    A "combination" is a set of slots (kind, action, day, time) that no training sentence has, in
    any wording. A "sentence" is a wording never trained on whose slots may be. Notes without a
    slot are all trained on.
    """
    if memo.kind == "note" and memo.what is None:
        return "train"
    if _bucket("combination", memo.kind, memo.action or memo.what, memo.day, memo.time) == 0:
        return "combination"
    return "sentence" if _bucket("sentence", memo.text) == 0 else "train"


def held_out(memo: Memo) -> bool:
    """Say whether this memo must never be trained on."""
    return split(memo) != "train"


def sample(rng: random.Random, part: str, kind: str | None = None) -> Memo:
    """Make one memo of one part of the split ("train", "sentence" or "combination")."""
    while True:
        memo = generate(rng, kind)
        if split(memo) == part:
            return memo


def paragraph(rng: random.Random, n: int, part: str = "train") -> list[Memo]:
    """Make a memo of `n` sentences with no errand or remark said twice."""
    memos: list[Memo] = []
    seen: set[str] = set()
    while len(memos) < n:
        memo = sample(rng, part)
        key = memo.action or memo.text
        if key not in seen:
            seen.add(key)
            memos.append(memo)
    return memos


def count() -> int:
    """Count the sentences the grammar can make (a lower bound: longer lists count once)."""
    whens = sum(len(group) for group in _whens().values())
    tasks = sum(len(group) for group in _tasks().values())
    events = sum(len(group) for group in _events().values())
    lists = sum(math.perm(len(ITEMS), size) for size in range(1, MOST_ITEMS + 1))
    return (
        tasks * (whens * len(ORDERS) + (whens - 1) * len(LEADS))
        + lists * (whens * len(SHOPPING) + len(LISTS))
        + events * (whens - 1) * len(DIARY)
        + len(PEOPLE) * len(FACTS) * len(TELLS)
        + len(_remarks())
    )


def vocabulary(samples: int = 200_000) -> set[str]:
    """Collect the distinct words of many sentences, without case and punctuation."""
    rng = random.Random(0)
    words: set[str] = set()
    for _ in range(samples):
        words.update(word.strip(".,").lower() for word in generate(rng).text.split())
    return words


def main() -> None:
    """Print a few memos and the size of the grammar."""
    rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    for kind in KINDS:
        for _ in range(4):
            print(generate(rng, kind))
    total = count()
    assert total >= 50_000, total  # noqa: S101 - the size promised in the model card
    print(f"{total} sentences, {len(vocabulary())} words")


if __name__ == "__main__":
    main()
