"""How long the server takes: to start, to acknowledge a judgment, to claim, to send a picture; over loopback.

    python tests/benchmarks/bench_ui.py --annotators 8 --judgments 150

Protocol: a server process on a store of 4,000 items, and in this process some annotators who each send one judgment a
request: one of them as fast as it is answered, then the others with --pace seconds between two judgments of a person.
Times are of the whole request as the client sees it. The start is from the command to the first answer, without
Gradio's pages; its second figure is the server's processor time, which hardly depends on what else runs. So is the last
figure: what one judgment costs the server, its share of a claim and one picture included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx
import psutil

from storage import Store
from tests.benchmarks.store_filler import add_items_in_bulk, add_noise_images
from tests.faults.annotators import PROJECT, free_port, start_server

Times = dict[str, list[float]]


def fill(path: Path, n_annotators: int, n_items: int) -> list[str]:
    """A project and its annotators' tokens."""
    with Store.open(path) as store:
        store.create_project(PROJECT, gold_fraction=0.1, repeat_fraction=0.05)
        add_items_in_bulk(store, PROJECT, add_noise_images(store, n_items, 64))
        names = [f"a{number}" for number in range(n_annotators)]
        for name in names:
            store.add_annotator(name, is_simulated=True)
        return [store.create_api_token(name, "bench") for name in names]


async def judge(client: httpx.AsyncClient, token: str, n: int, pace_seconds: float, times: Times) -> None:
    """One annotator: claims eight at a time, looks at each picture, sends one judgment a request."""
    headers = {"Authorization": f"Bearer {token}"}
    held: list[dict[str, Any]] = []
    for _ in range(n):
        if not held:
            claim = {"n": 8, "have": []}
            held = (await timed(client, "claim of 8", times, headers, f"/api/v1/projects/{PROJECT}/claim", claim))[
                "items"
            ]
        item = held.pop(0)
        await timed(client, "picture", times, headers, item["images"][0]["url"], None)
        row = {"uuid": str(uuid.uuid4()), "assignmentId": item["id"], "answer": "no", "elapsedMs": 900}
        answer = await timed(client, "acknowledgement", times, headers, "/api/v1/judgments", {"judgments": [row]})
        assert answer["results"][0]["status"] == "stored", answer
        await asyncio.sleep(pace_seconds)


async def timed(
    client: httpx.AsyncClient, what: str, times: Times, headers: dict[str, str], path: str, body: Any
) -> dict[str, Any]:
    """One request, its milliseconds noted."""
    start = time.perf_counter()
    response = await (
        client.get(path, headers=headers) if body is None else client.post(path, json=body, headers=headers)
    )
    times[what].append(1000 * (time.perf_counter() - start))
    response.raise_for_status()
    content: dict[str, Any] = response.json() if body is not None else {}
    return content


async def judge_all(port: int, tokens: list[str], n: int, pace_seconds: float) -> Times:
    """Everyone at once."""
    times: Times = defaultdict(list)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
        await asyncio.gather(*[judge(client, token, n, pace_seconds, times) for token in tokens])
    return times


def summarise(times: Times) -> dict[str, dict[str, float]]:
    """Median and p95 of each kind of request, in milliseconds."""
    found = {}
    for what, values in times.items():
        ordered = sorted(values)
        p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        found[what] = {"n": len(ordered), "median_ms": round(ordered[len(ordered) // 2], 1), "p95_ms": round(p95, 1)}
    return found


def processor_seconds(pid: int) -> float:
    """Processor time that a program has used."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=8)
    parser.add_argument("--judgments", type=int, default=150, help="of each annotator")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds between two judgments of one person")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, port = Path(folder) / "store", free_port()
        tokens = fill(path, arguments.annotators, 4000)
        start = time.perf_counter()
        server = start_server(path, port)
        try:
            seconds, used = time.perf_counter() - start, processor_seconds(server.pid)
            alone = asyncio.run(judge_all(port, tokens[:1], arguments.judgments, 0.0))
            together = asyncio.run(judge_all(port, tokens[1:], arguments.judgments, arguments.pace))
            judging = processor_seconds(server.pid) - used
        finally:
            server.kill()
            server.wait()
    result = {
        "start_seconds": round(seconds, 2),
        "start_processor_seconds": round(used, 2),
        "processor_ms_a_judgment": round(1000 * judging / (len(tokens) * arguments.judgments), 1),
        "load_average": psutil.getloadavg()[0],
        "one annotator without pause": summarise(alone),
        f"{len(tokens) - 1} annotators, {arguments.pace} s between judgments": summarise(together),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
