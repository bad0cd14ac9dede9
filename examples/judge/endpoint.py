"""A stand-in for an OpenAI-compatible endpoint: it grades by words. Standard library only. Its port is in the file `port`."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def grade(text):
    hits = [word for word in ("heat pump", "built in 19") if word in text.lower()]
    return len(hits), f"it mentions {' and '.join(hits)}" if hits else "it mentions neither"


class Chat(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        items = re.split(r"^Item \d+:$", request["messages"][1]["content"], flags=re.MULTILINE)[1:]
        grades = []
        for number, item in enumerate(items, start=1):
            score, why = grade(item)
            grades.append({"item": number, "why": why, "grade": score})
        message = {"role": "assistant", "content": json.dumps({"grades": grades})}
        usage = {"prompt_tokens": sum(map(len, items)) // 4, "completion_tokens": 20 * len(items)}
        body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
with open("port", "w") as file:
    file.write(str(server.server_port))
server.serve_forever()
