"""A scoring service on a free port, which it prints. Standard library only.

    server.py COUNTER [PORT [CERTIFICATE]]

POST /BEHAVIOUR misbehaves always, POST /BEHAVIOUR/2 the first two times; then it scores items by their `qed`.
COUNTER gets a line for each item that is scored. Where there is a file COUNTER.good, it is good. Where there is a
file COUNTER.status with `503`, it answers with that, or from so many items on with `503 after 16`. With a file of a
certificate and its key it speaks TLS.
"""

import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

counter = sys.argv[1]
lock = threading.Lock()
requests = {}
last = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body, headers=()):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
        _, behaviour, *times = self.path.split("?")[0].split("/")
        with lock, open(counter + ".keys", "a") as file:
            file.write(f"{self.headers['Idempotency-Key']}\n")
        with lock:
            requests[self.path] = requests.get(self.path, 0) + 1
            early = time.monotonic() - last.get(self.path, -10) < 1
            last[self.path] = time.monotonic()
            if times and requests[self.path] > int(times[0]):
                # Shows whether Retry-After was honoured.
                behaviour = "early" if behaviour == "429" and early else "good"
        if os.path.exists(counter + ".good"):
            behaviour = "good"
        if os.path.exists(counter + ".status"):
            status, _, after = open(counter + ".status").read().partition(" after ")
            if not after or os.path.exists(counter) and len(open(counter).readlines()) >= int(after):
                return self.reply(int(status), "no entry", [("Retry-After", "1")] if status == "429" else [])
        if behaviour == "mixed" and sum(requests.values()) % 6 == 0:
            return self.reply(503, "oops")
        if behaviour in ("weight", "mixed"):
            for item in items:
                item["qed"] = item["weight"]
        if behaviour == "stalls" and os.path.exists(counter) and len(open(counter).readlines()) >= 8:
            with lock, open(counter + ".stalled", "a") as file:
                file.write("1\n")
            time.sleep(600)
        if behaviour == "429":
            return self.reply(429, "slow down", [("Retry-After", "1")])
        if behaviour in ("500", "503"):
            return self.reply(int(behaviour), "oops")
        if behaviour == "repeats-and-refuses":
            token = self.headers["Authorization"] or self.headers["X-Token"]
            return self.reply(401, json.dumps({"error": f"{token} of {self.path}"}))
        if behaviour == "dead":
            return self.reply(401, f"token {self.headers['Authorization']} has expired")
        if behaviour in ("early", "404"):
            return self.reply(404, f"no such model: {self.headers['Authorization']}")
        if behaviour == "302":
            return self.reply(302, "", [("Location", "/good")])
        if behaviour == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return None
        if behaviour == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.wfile.flush()
            time.sleep(600)
        if behaviour == "html":
            return self.reply(200, "<html>Welcome</html>")
        if behaviour == "other-json":
            return self.reply(200, '{"results": []}')
        if behaviour == "huge":
            return self.reply(200, b" " * (65 << 20))
        if behaviour == "token" and self.headers["Authorization"] != "Bearer hunter2":
            return self.reply(401, "who are you?")
        left = []
        if behaviour == "busy" and requests[self.path] == 1:
            left = [{"db_idx": item["db_idx"], "outcome": "unavailable", "retry_after": 0} for item in items[1::2]]
            items = items[::2]
        ids, scores = [item["db_idx"] for item in items], [item["qed"] for item in items]
        with lock, open(counter, "a") as file:
            file.write("".join(f"{db_idx}\n" for db_idx in ids))
        odd = {"nan": float("nan"), "infinite": float("inf"), "text": "good", "null": None}
        if behaviour in odd:
            scores = [odd[behaviour] if position % 2 == 1 else score for position, score in enumerate(scores)]
        answers = [{"db_idx": db_idx, "score": score} for db_idx, score in zip(ids, scores)][::-1] + left
        if behaviour == "null":
            answers = [{**answer, "reason": "no conformer"} for answer in answers]
        if behaviour == "few":
            answers = answers[1:]
        if behaviour == "many":
            answers.append({"db_idx": 1_000_000, "score": 0.5})
        if behaviour == "wrong-ids":
            answers = [{**answer, "db_idx": answer["db_idx"] + 1} for answer in answers]
        if behaviour == "float-ids":
            answers = [{**answer, "db_idx": float(answer["db_idx"])} for answer in answers]
        if behaviour == "mixed":
            rejected = {"score": None, "outcome": "rejected", "reason": "a known toxin"}
            failed = {"score": None, "reason": "no conformer"}
            odd = {1: rejected, 2: failed}
            answers = [{**answer, **odd.get(answer["db_idx"] % 5, {})} for answer in answers]
        if behaviour == "rejects":
            rejected = {"score": None, "outcome": "rejected", "reason": "a known toxin"}
            answers = [{**answer, **(rejected if answer["db_idx"] % 3 == 0 else {})} for answer in answers]
        if behaviour == "repeats":
            # What a server reads as Latin-1 was sent as UTF-8.
            token = (self.headers["Authorization"] or self.headers["X-Token"]).encode("latin-1").decode()
            reason = f"no score for {token} of {self.path}"
            answers = [{**answer, "score": None, "reason": reason, "why": reason} for answer in answers]
        if behaviour == "embeddings":
            answers = [{"db_idx": item["db_idx"], "score": len(item.get("embedding", []))} for item in items]
        if behaviour == "numbers":
            answers = scores
        if behaviour == "few-numbers":
            answers = scores[1:]
        bare = behaviour in ("bare", "numbers")
        return self.reply(200, json.dumps(answers if bare else {"scores": answers}))


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), Handler)
server.daemon_threads = True
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
# Clients that hang up early are what some tests are about.
server.handle_error = lambda *_: None
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
# Ends with whoever started it.
sys.stdin.read()
