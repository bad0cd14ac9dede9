"""Like `pool.py`, with Ray Serve. It has more options (autoscaling, several models behind one address), but is slower: 15 to
20 ms for each batch instead of 2.

    pip install "ray[serve]"
    python examples/ray/serve.py score:Scorer --replicas 8
"""

import argparse
import asyncio
import importlib
import time

import ray
from ray import serve
from starlette.requests import Request


# A replica processes one batch at a time; further batches wait for a free replica.
@serve.deployment(max_ongoing_requests=1, health_check_period_s=2)
class Pool:
    def __init__(self, name):
        module, attribute = name.split(":")
        self.scorer = getattr(importlib.import_module(module), attribute)()

    async def __call__(self, request: Request):
        items = (await request.json())["items"]
        return {"scores": await asyncio.to_thread(self.scorer, items)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scorer", help="MODULE:CLASS")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=1, help="CPUs for each replica")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each replica")
    parser.add_argument("--address", help="address of a Ray cluster, such as `auto`")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    ray.init(address=arguments.address, log_to_driver=False)
    serve.start(http_options={"host": arguments.host, "port": arguments.port})
    actor_options = {"num_cpus": arguments.cpus, "num_gpus": arguments.gpus}
    serve.run(Pool.options(num_replicas=arguments.replicas, ray_actor_options=actor_options).bind(arguments.scorer))
    print(f"[score]\nurl = \"http://{arguments.host}:{arguments.port}/\"\nconcurrency = {arguments.replicas}", flush=True)
    while True:
        time.sleep(60)
