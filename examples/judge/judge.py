"""A language model as a judge: a scorer for any OpenAI-compatible endpoint. It needs Python 3.9 and nothing else.

    python3 judge.py PROMPT --model MODEL --grades 0-2

PROMPT is a text file. Above its line `---` are the instructions. Below it is the form of an item, with {{column}} for the
columns that the run file sends. OPENAI_API_KEY holds the key, if the endpoint wants one, and OPENAI_BASE_URL its address.

An item that the endpoint did not judge is answered as unavailable: uphill asks for it again and records nothing. An item
without a usable grade after a second request fails, with the words of the judge in `why`. See docs/judge.md.
"""

import argparse
import email.utils
import http.client
import itertools
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("prompt", help="the file with the instructions and the form of an item")
parser.add_argument("--model", required=True)
parser.add_argument("--grades", default="0-1", help="the lowest and the highest grade, such as 0-2 (whole numbers)")
parser.add_argument("--items", type=int, default=1, help="items in a request")
parser.add_argument("--concurrency", type=int, default=8, help="requests at the same time")
parser.add_argument("--timeout", type=float, default=120, help="seconds for a request")
parser.add_argument("--wait", type=float, default=60, help="seconds to wait here for a busy endpoint, before uphill waits")
parser.add_argument("--price", default="", help="money for a million tokens of input and of output, such as 0.15,0.60")
options = parser.parse_args()

KEY = os.environ.get("OPENAI_API_KEY", "")
URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/") + "/chat/completions"
LOWEST, HIGHEST = (int(bound) for bound in options.grades.split("-"))
PRICES = [float(price) / 1e6 for price in options.price.split(",")] if options.price else [1.0, 1.0]
#: Statuses of an endpoint that did not look at the request, and may do so later.
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
#: Statuses of an endpoint that looked at this request and will not answer it, whoever asks again.
INVALID = {400, 413, 422}
#: Seconds that an endpoint may ask to wait at most.
LONGEST_PAUSE = 3600.0
#: Seconds to wait where the endpoint denies access: the account may be topped up meanwhile.
DENIED_PAUSE = 30.0


class Unavailable(Exception):
    """The endpoint did not look at the request. It may do so after some seconds."""

    def __init__(self, reason, seconds=None):
        super().__init__(reason)
        self.seconds = seconds


class Invalid(Exception):
    """The endpoint looked at the request and does not answer it."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send the key to another address."""

    def redirect_request(self, *_):
        return None


opener = urllib.request.build_opener(NoRedirect)


class Endpoint:
    """Requests to the endpoint, with pauses that all threads keep."""

    def __init__(self):
        #: What some endpoints do not know. A setting that is refused is not sent again.
        self.settings = {"temperature": 0, "response_format": response_format()}
        self.resumes = 0.0
        self.reason = ""
        #: Whether any request was answered: until then, a rejected one says nothing about its items.
        self.has_answered = False
        self.lock = threading.Lock()

    def chat(self, messages):
        """The message of the judge, and its tokens of input and output."""
        deadline = time.monotonic() + options.wait
        for attempt in itertools.count():
            pause = self.resumes - time.monotonic()
            if time.monotonic() + pause > deadline:
                raise Unavailable(self.reason, pause)
            time.sleep(max(pause, 0.0))
            try:
                return self.post(messages)
            except Unavailable as busy:
                seconds = max(busy.seconds or 0.0, min(0.5 * 2.0**attempt, 30.0))
                if busy.seconds is not None:
                    with self.lock:
                        self.resumes, self.reason = max(self.resumes, time.monotonic() + seconds), str(busy)
                if time.monotonic() + seconds > deadline:
                    raise
                time.sleep(seconds)

    def post(self, messages):
        """Sends the messages, without the settings that the endpoint refuses."""
        settings = dict(self.settings)
        while True:
            try:
                answer = self.send({"model": options.model, "messages": messages, **settings})
            except Invalid as invalid:
                if not settings:
                    raise
                # The setting that the endpoint names, or all of them.
                named = [name for name in settings if name in str(invalid)] or list(settings)
                settings = {name: value for name, value in settings.items() if name not in named}
                continue
            with self.lock:
                self.settings = {name: value for name, value in self.settings.items() if name in settings}
            return answer

    def send(self, body):
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {KEY}"} if KEY else {})}
        request = urllib.request.Request(URL, json.dumps(body).encode(), headers)
        try:
            with opener.open(request, timeout=options.timeout) as response:
                answer = json.load(response)
            message, usage = answer["choices"][0]["message"], answer.get("usage") or {}
            tokens = [number(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
            reply = {"text": as_text(message.get("content")), "refusal": as_text(message.get("refusal"))}
            self.has_answered = True
            return reply, tokens
        except urllib.error.HTTPError as error:
            text = error.read(2000).decode(errors="replace").strip()
            reason = f"HTTP {error.code}: {text}" if text else f"HTTP {error.code}"
            if error.code in INVALID:
                raise Invalid(reason) from None
            # Wrong keys, models and addresses are no judgement of an item either.
            seconds = retry_after(error.headers) if error.code in BUSY else DENIED_PAUSE
            raise Unavailable(reason, seconds) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"no answer: {getattr(error, 'reason', None) or error or type(error).__name__}") from None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Unavailable("the endpoint returned no chat completion") from None


def as_text(content):
    """The text of a message, which some endpoints send in parts."""
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def number(value):
    return value if isinstance(value, (int, float)) else 0


def retry_after(headers):
    """The seconds that the endpoint asks to wait, which it gives as a number or as a date."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return min(max(seconds, 0.0), LONGEST_PAUSE) if seconds == seconds else None


def response_format():
    """Structured output: a list of grades with the words of the judge."""
    grade = {
        "type": "object",
        "properties": {
            "item": {"type": "integer"},
            "why": {"type": "string"},
            "grade": {"type": "integer", "enum": list(range(LOWEST, HIGHEST + 1))},
        },
        "required": ["item", "why", "grade"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"grades": {"type": "array", "items": grade}},
        "required": ["grades"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "grades", "strict": True, "schema": schema}}


def read_prompt():
    """The instructions, and the form of an item."""
    with open(options.prompt, encoding="utf-8") as file:
        instructions, line, form = file.read().partition("\n---\n")
    if not line:
        sys.exit(f"{options.prompt}: expected a line `---` between the instructions and the form of an item")
    rules = (
        f"\n\nA grade is a whole number from {LOWEST} to {HIGHEST}. Answer with JSON only, one entry for each item: "
        '{"grades": [{"item": 1, "why": "one sentence", "grade": ' + str(LOWEST) + "}]}"
    )
    return instructions.strip() + rules, form.strip()


INSTRUCTIONS, FORM = read_prompt()


def describe(item):
    """The form of an item, with its columns."""

    def value(match):
        name = match.group(1)
        if name not in item:
            columns = ", ".join(name for name in item if name != "db_idx")
            print(f"{options.prompt}: no column {{{{{name}}}}} (there are: {columns})", flush=True)
            os._exit(2)
        return "" if item[name] is None else str(item[name])

    return re.sub(r"\{\{\s*([^{}]+?)\s*\}\}", value, FORM)


def parse_grade(value):
    """A grade as JSON or text: 2, "2", "2.0", "2/2", "yes". None for anything else."""
    if isinstance(value, bool):
        value = int(value)
    text = str(value).strip().lower()
    if (LOWEST, HIGHEST) == (0, 1) and text in ("yes", "no"):
        return int(text == "yes")
    match = re.fullmatch(r"(-?\d+)(?:\.0+)?(?:\s*/\s*(\d+))?", text)
    if not match or match.group(2) and int(match.group(2)) != HIGHEST:
        return None
    grade = int(match.group(1))
    return grade if LOWEST <= grade <= HIGHEST else None


def parse(text, count):
    """The grades in a message, and the words for each: by the number of the item, from 1."""
    text = text.strip()
    fenced = re.search(r"```(?:\w+\n|\n)?(.*?)```", text, re.DOTALL)
    body = fenced.group(1).strip() if fenced else text
    try:
        answer = json.loads(body)
    except ValueError:
        start, end = body.find("{"), body.rfind("}")
        try:
            answer = json.loads(body[start : end + 1])
        except ValueError:
            answer = body
    entries = answer.get("grades", [answer]) if isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        body = str(answer)
        # No JSON: a grade alone, or after the word, but only for one item and only if there is one.
        found = re.findall(r"\b(?:grade|score|rating)\b\W*(-?\d+(?:\.0+)?(?:\s*/\s*\d+)?)(?![\d.])", body, re.IGNORECASE)
        entries = [{"grade": found[0] if len(found) == 1 else body, "why": text}]
    grades = {}
    for position, entry in enumerate(entries, start=1):
        entry = entry if isinstance(entry, dict) else {"grade": entry}
        item = 1 if count == 1 else entry.get("item", position)
        grade = parse_grade(entry.get("grade"))
        if isinstance(item, int) and 1 <= item <= count:
            # Two grades for an item are none.
            grades[item] = (None if item in grades else grade, as_text(entry.get("why")))
    return {item: entry for item, entry in grades.items() if entry[0] is not None}


def clean(text):
    """A text without the key, which an endpoint may repeat, and without halves of characters."""
    text = text.encode("utf-8", "replace").decode()
    return text.replace(KEY, "***") if len(KEY) >= 8 else text


lock = threading.Lock()


def answer(item, **values):
    values = {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}
    with lock:
        print(json.dumps({"db_idx": item["db_idx"], **values}), flush=True)


def judge(endpoint, items):
    """Judges items in one request, and those without a grade in a second one. Answers each item once."""
    try:
        judge_items(endpoint, items)
    except Exception as error:  # A mistake in this file: no item was judged, and the process must say so.
        print(f"judge.py: {type(error).__name__}: {error}", flush=True)
        os._exit(1)


def judge_items(endpoint, items):
    waiting, spent, history = list(items), {item["db_idx"]: [0.0, 0.0] for item in items}, []
    for second in (False, True):
        listed = "\n\n".join(f"Item {number}:\n{describe(item)}" for number, item in enumerate(waiting, start=1))
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": listed}]
        if second and len(waiting) == len(items):
            messages += history + [{"role": "user", "content": "That had no usable grade. Answer with the JSON only."}]
        try:
            last, tokens = endpoint.chat(messages)
        except Unavailable as busy:
            delay = {} if busy.seconds is None else {"retry_after": round(busy.seconds, 1)}
            for item in waiting:
                answer(item, outcome="unavailable", reason=str(busy)[:300], **delay)
            return
        except Invalid as invalid:
            for item in waiting:
                if endpoint.has_answered:
                    answer(item, score=None, reason="the endpoint rejects the request", why=str(invalid))
                else:
                    answer(item, outcome="unavailable", reason=str(invalid)[:300])
            return
        for item in waiting:
            spent[item["db_idx"]] = [s + t / len(waiting) for s, t in zip(spent[item["db_idx"]], tokens)]
        grades = {} if last["refusal"] else parse(last["text"], len(waiting))
        for number, item in enumerate(waiting, start=1):
            if number in grades:
                grade, why = grades[number]
                answer(item, score=grade, why=why, **costs(spent[item["db_idx"]]))
        waiting = [item for number, item in enumerate(waiting, start=1) if number not in grades]
        if not waiting:
            return
        history = [{"role": "assistant", "content": last["refusal"] or last["text"]}]
    words = last["refusal"] or last["text"]
    reason = "the judge refuses" if last["refusal"] else "no grade in the judge's answer" if words else "an empty answer"
    for item in waiting:
        answer(item, score=None, reason=reason, why=words, **costs(spent[item["db_idx"]]))


def costs(tokens):
    return {"tokens": sum(tokens), "cost": sum(price * count for price, count in zip(PRICES, tokens))}


def main():
    endpoint, batch = Endpoint(), []
    with ThreadPoolExecutor(options.concurrency) as pool:
        for line in sys.stdin.buffer:
            if line.strip():
                batch.append(json.loads(line))
                continue
            groups = [batch[first : first + options.items] for first in range(0, len(batch), options.items)]
            list(pool.map(lambda group: judge(endpoint, group), groups))
            batch = []
            with lock:
                print(flush=True)


if __name__ == "__main__":
    main()
