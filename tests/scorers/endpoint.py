"""An OpenAI-compatible endpoint on a free port, which it prints, that misbehaves. Standard library only.

    endpoint.py COUNTER [PORT]

The grade of an item is its `weight` in the prompt, `weight: 0.37`, times ten and rounded down. COUNTER gets the weight of each
item that is graded, COUNTER.bodies the requests. COUNTER.mode, which is read at each request, says how it behaves; `steady` if
there is none. Bad answers are the first ones to an item, or all of them for `stubborn` ones, whose weight ends in 9.
"""

import collections
import email.utils
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

counter = sys.argv[1]
lock = threading.Lock()
asked = collections.Counter()
requests = 0


def append(path, line):
    with lock, open(path, "a") as file:
        file.write(f"{line}\n")


def mode():
    return open(counter + ".mode").read().strip() if os.path.exists(counter + ".mode") else "steady"


def as_json(grades, why="as it says"):
    return json.dumps({"grades": [{"item": n, "why": why, "grade": g} for n, g in enumerate(grades, start=1)]})


#: Answers in other words that have the grade all the same, for one item.
PARSED = [
    lambda grade: f"```json\n{as_json([grade])}\n```",
    lambda grade: f"Here you are:\n{as_json([grade])}\nAnything else?",
    lambda grade: f"{grade}/9",
    lambda grade: str(grade),
    lambda grade: f"A long story. Grade: {grade}",
    lambda grade: json.dumps({"why": "short", "grade": str(grade)}),
]

#: Answers without a grade.
USELESS = [
    lambda grade: "",
    lambda grade: as_json([grade])[:-9],
    lambda grade: "I would say 3, or even 4, out of 10.",
    lambda grade: "7/10",
    lambda grade: as_json([99]),
    lambda grade: json.dumps({"grades": []}),
    lambda grade: f"Grade: {grade}. On second thoughts, grade: {(grade + 1) % 10}.",
]


class Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body, headers=(), length=None):
        body = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def complete(self, content, refusal=None):
        message = {"role": "assistant", "content": content, "refusal": refusal}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        self.reply(200, json.dumps({"choices": [{"index": 0, "message": message}], "usage": usage}))

    def do_POST(self):
        global requests
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        request, behaviour = json.loads(text), mode()
        append(counter + ".bodies", text)
        weights = re.findall(r"^weight: ([0-9.]+)$", request["messages"][1]["content"], re.MULTILINE)
        grades = [int(float(weight) * 10) for weight in weights]
        with lock:
            requests += 1
            number = requests
        if self.headers["Authorization"] != "Bearer secret-key-17":
            return self.reply(401, f"wrong key: {self.headers['Authorization']}")
        if behaviour == "denied":
            return self.reply(401, "the key secret-key-17 has expired")
        if behaviour == "plain" and "response_format" in request:
            return self.reply(400, '{"error": "response_format is not supported"}')
        if behaviour == "plain" and "temperature" in request:
            return self.reply(400, '{"error": "unsupported value: temperature"}')
        if behaviour == "moody":
            grades = [9 - grade for grade in grades]
        if behaviour == "busy":
            return self.reply(429, "slow down", [("Retry-After", "600")])
        if behaviour == "mixed":
            if number % 5 == 0:
                return self.reply(429, "slow down", [("Retry-After", "0.2")])
            if number % 7 == 0:
                return self.reply(503, "restarting", [("Retry-After", email.utils.formatdate(time.time() + 1, usegmt=True))])
            if number % 11 == 0:
                return self.reply(200, '{"choices": [{"mess', length=1000)
            if number % 13 == 0:
                return self.reply(200, "<html>a proxy</html>")
            if number % 17 == 0:
                self.close_connection = True
                return self.connection.close()
        if behaviour == "half" and len(weights) > 2:
            # Some of several items.
            for weight in weights[::2]:
                append(counter, weight)
            entries = json.loads(as_json(grades))["grades"][::2]
            return self.complete(json.dumps({"grades": entries}))
        if behaviour in ("mixed", "rambles") and len(weights) == 1:
            key, stubborn = weights[0], weights[0].endswith("9")
            asked[key] += 1
            kind = int(float(key) * 100)
            if stubborn or kind % 3 == 1 and asked[key] == 1:
                if kind % 2 == 0 or weights[0].endswith("09"):
                    return self.complete(None, refusal="I can't help with that, secret-key-17.")
                return self.complete(USELESS[kind % len(USELESS)](grades[0]))
            append(counter, key)
            return self.complete(PARSED[kind % len(PARSED)](grades[0]))
        if behaviour == "long" and any(weight.endswith("5") for weight in weights):
            return self.reply(400, '{"error": "the context is too long"}')
        for weight in weights:
            append(counter, weight)
        return self.complete(as_json(grades))


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), Chat)
server.daemon_threads = True
server.handle_error = lambda *_: None
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
# Ends with whoever started it.
sys.stdin.read()
