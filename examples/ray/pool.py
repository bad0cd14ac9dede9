"""A pool of Ray actors behind one URL, as a scorer for `uphill`.

    pip install ray
    python examples/ray/pool.py score:Scorer --actors 8 --address auto

`score:Scorer` names a class, or a function that returns a scorer. It is called once for each actor, so that models are
loaded once. The scorer is called with each batch, a list of dicts, and returns a list of `{"db_idx": …, "score": …}`.
Every node must be able to import it. An actor processes one batch at a time.
"""

import argparse
import importlib
import json
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ray
from ray.exceptions import RayActorError, RayError


# Ray must not retry a lost batch: the client does, and counts the retries.
@ray.remote(max_restarts=-1, max_task_retries=0)
class Actor:
    def __init__(self, name):
        module, attribute = name.split(":")
        self.scorer = getattr(importlib.import_module(module), attribute)()

    def ping(self):
        pass

    def score(self, items):
        return self.scorer(items)


class Pool:
    def __init__(self, actors):
        self.idle, self.alive, self.lock = queue.Queue(), 0, threading.Lock()
        for actor in actors:
            self.add(actor)

    def add(self, actor):
        """Adds an actor to the pool as soon as it answers."""

        def wait():
            while True:
                try:
                    ray.get(actor.ping.remote())
                    break
                except RayError:
                    time.sleep(0.5)
            with self.lock:
                self.alive += 1
            self.idle.put(actor)

        threading.Thread(target=wait, daemon=True).start()

    def score(self, items):
        """Returns the HTTP status and the body. 503: the batch was not processed, retry later. 500: the batch failed."""
        while True:
            if self.alive == 0:
                return 503, {"error": "no actor is alive"}
            try:
                actor = self.idle.get(timeout=0.5)
                break
            except queue.Empty:
                pass
        try:
            scores = ray.get(actor.score.remote(items))
            self.idle.put(actor)
            return 200, {"scores": scores}
        except RayActorError as error:
            with self.lock:
                self.alive -= 1
            self.add(actor)
            return 500, {"error": f"an actor died: {error}"}
        except RayError as error:
            self.idle.put(actor)
            return 500, {"error": str(error)}


class Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Send headers and body in one packet without delay. Otherwise each answer waits 40 ms for an acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
        status, answer = self.server.pool.score(items)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scorer", help="MODULE:CLASS")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=1, help="CPUs for each actor")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each actor")
    parser.add_argument("--address", help="address of a Ray cluster, such as `auto` (default: start a local one)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    ray.init(address=arguments.address, log_to_driver=False)
    pooled = Actor.options(num_cpus=arguments.cpus, num_gpus=arguments.gpus)
    server = Server((arguments.host, arguments.port), Gateway)
    server.pool = Pool([pooled.remote(arguments.scorer) for _ in range(arguments.actors)])
    print(f"[score]\nurl = \"http://{arguments.host}:{server.server_port}\"\nconcurrency = {arguments.actors}", flush=True)
    server.serve_forever()
