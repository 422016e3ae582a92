"""Annotators judge over HTTP while the server is killed and restarted: is every acknowledged judgment stored once?

    python tests/faults/annotators.py --annotators 50 --judgments 200 --kills 5

Protocol: a server process (`ui.serve` on a store of its own) and one process with all annotators, each of whom claims
and submits as a browser does: unacknowledged answers stay in an outbox and are sent again, the same uuid with the same
content, until the server answers. Each acknowledged UUID goes to a log. Whenever another part of all judgments is
acknowledged the server gets SIGKILL and is started again. At the end every UUID in the log must be in the store exactly
once, no item may have more answers than it asked for, and ``examine_store`` must find no error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx

from storage import Store
from storage.doctor import examine_store
from tests.benchmarks.store_filler import add_blank_images, add_items_in_bulk

PROJECT, K = "faults", 3
START_SECONDS = 240.0  # on a very busy machine


# --- the server ------------------------------------------------------------------------------------------------------


def serve(path: Path, port: int) -> None:
    """The server process: the own routes, without Gradio's pages."""
    from ui.serve import serve as serve_pages
    from ui.settings import UiSettings

    serve_pages(path, UiSettings(port=port, has_demo=False, shell_delay_seconds=86_400))


def start_server(path: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers."""
    command = [sys.executable, __file__, "--serve", str(path), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=30.0)
            return server
        except httpx.TransportError:
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with code {server.returncode}") from None
            time.sleep(0.05)
    server.kill()
    server.wait()
    raise TimeoutError(f"the server did not answer within {START_SECONDS:.0f} s")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the annotators --------------------------------------------------------------------------------------------------


@dataclass
class Outbox:
    """One annotator's browser: what it holds, what it has not had acknowledged, and what became of the rest."""

    chooser: random.Random
    held: list[dict[str, Any]] = field(default_factory=list)
    unsent: list[dict[str, Any]] = field(default_factory=list)
    n_acknowledged: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    def have(self) -> list[int]:
        """All assignments that the browser holds or has answered without an acknowledgement."""
        return [item["id"] for item in self.held] + [row["assignmentId"] for row in self.unsent]

    def answer(self, n: int) -> None:
        """Judge the next pictures; answers go to the outbox."""
        for item in self.held[:n]:
            answer = self.chooser.choice(["yes", "no"])
            row = {"uuid": str(uuid.UUID(int=self.chooser.getrandbits(128))), "assignmentId": item["id"]}
            self.unsent.append({**row, "answer": answer, "elapsedMs": 900, "judgedAt": 1_790_000_000_000})
        del self.held[:n]

    def acknowledge(self, results: list[dict[str, Any]]) -> list[str]:
        """Take the results of a batch in; the UUIDs that are acknowledged now."""
        done = {result["uuid"]: result["status"] for result in results}
        self.statuses.update(done.values())
        self.unsent = [row for row in self.unsent if row["uuid"] not in done]
        acknowledged = [name for name, status in done.items() if status in ("stored", "known")]
        self.n_acknowledged += len(acknowledged)
        return acknowledged


async def judge(client: httpx.AsyncClient, token: str, wanted: int, seed: int, log: int) -> Counter[str]:
    """One annotator, until enough is acknowledged or nothing is left."""
    outbox, headers = Outbox(random.Random(seed)), {"Authorization": f"Bearer {token}"}
    n_empty = 0
    while (outbox.n_acknowledged < wanted or outbox.unsent) and n_empty < 40:
        if outbox.unsent:
            body = {"judgments": outbox.unsent[:20]}
            answer = await post(client, "/api/v1/judgments", body, headers, outbox)
            if answer is not None:
                acknowledged = outbox.acknowledge(answer["results"])
                os.write(log, "".join(f"{name}\n" for name in acknowledged).encode())
        elif not outbox.held:
            n = min(8, wanted - outbox.n_acknowledged)
            answer = await post(client, f"/api/v1/projects/{PROJECT}/claim", {"n": n, "have": []}, headers, outbox)
            outbox.held = answer["items"] if answer is not None else []
            n_empty = 0 if outbox.held or answer is None else n_empty + 1
            await asyncio.sleep(0.1 * bool(n_empty))
        else:
            outbox.answer(outbox.chooser.randint(1, 4))
    return outbox.statuses


async def post(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str], outbox: Outbox
) -> dict[str, Any] | None:
    """One request; None if the server was not there, which a browser can't tell from an answer that got lost."""
    try:
        response = await client.post(path, json=body, headers=headers)
    except httpx.TransportError:
        outbox.statuses["unanswered"] += 1
        await asyncio.sleep(outbox.chooser.uniform(0.05, 0.3))
        return None
    if response.status_code != 200:
        outbox.statuses[f"http {response.status_code}"] += 1
        await asyncio.sleep(0.2)
        return None
    content: dict[str, Any] = response.json()
    return content


async def judge_all(port: int, tokens: list[str], wanted: int, seed: int, log_path: Path) -> Counter[str]:
    """All annotators at once."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    limits = httpx.Limits(max_connections=len(tokens))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60.0) as client:
        work = [judge(client, token, wanted, seed * 1000 + i, log) for i, token in enumerate(tokens)]
        counters = await asyncio.gather(*work)
    os.close(log)
    return sum(counters, Counter())


# --- the test --------------------------------------------------------------------------------------------------------


def fill_store(path: Path, n_annotators: int, n_judgments: int) -> list[str]:
    """A project with room for all judgments and a little more; the annotators' tokens."""
    with Store.open(path) as store:
        settings = {"annotators_per_item": K, "annotators_max": K, "gold_fraction": 0, "repeat_fraction": 0}
        store.create_project(PROJECT, **settings)
        images = add_blank_images(store, n_annotators * n_judgments // K + 8 * n_annotators + n_judgments)
        add_items_in_bulk(store, PROJECT, images)
        names = [f"a{number}" for number in range(n_annotators)]
        for name in names:
            store.add_annotator(name, is_simulated=True)
        return [store.create_api_token(name, "faults") for name in names]


def run(folder: Path, n_annotators: int, n_judgments: int, n_kills: int, seed: int = 0) -> dict[str, Any]:
    """The whole test; every count of it."""
    path, log, port = folder / "store", folder / "log", free_port()
    tokens = fill_store(path, n_annotators, n_judgments)
    job = {"port": port, "tokens": tokens, "wanted": n_judgments, "seed": seed, "log": str(log)}
    server = start_server(path, port)
    people = subprocess.Popen(
        [sys.executable, __file__, "--judge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert people.stdin is not None and people.stdout is not None
    people.stdin.write(json.dumps(job))
    people.stdin.close()
    try:
        total, line_bytes, n_killed = n_annotators * n_judgments, 37, 0
        while people.poll() is None:
            n_done = log.stat().st_size // line_bytes if log.exists() else 0
            if n_killed < n_kills and n_done >= total * (n_killed + 1) / (n_kills + 1):
                server.send_signal(signal.SIGKILL)
                server.wait()
                server = start_server(path, port)
                n_killed += 1
            time.sleep(0.01)
        statuses = json.loads(people.stdout.read())
    finally:
        people.kill()
        people.wait()
        people.stdout.close()
        server.kill()
        server.wait()
    return {**count(path, log), "kills": n_killed, "statuses": statuses}


def count(path: Path, log: Path) -> dict[str, Any]:
    """What the store has of what was acknowledged."""
    acknowledged = log.read_text().split()
    findings = [f.message for f in examine_store(path) if f.level == "error" and f.check != "images"]
    with Store.open(path) as store:
        stored = Counter(row[0] for row in store.connection.execute("SELECT uuid FROM judgment"))
        items = Counter(row[0] for row in store.connection.execute("SELECT item_id FROM current_judgment"))
        by_person = store.connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM current_judgment GROUP BY item_id, annotator_id HAVING count(*) > 1)"
        ).fetchone()[0]
    return {
        "acknowledged": len(acknowledged),
        "stored": sum(stored.values()),
        "lost": len(set(acknowledged) - set(stored)),
        "duplicated": sum(n - 1 for n in stored.values()) + len(acknowledged) - len(set(acknowledged)),
        "judged_twice_by_one": by_person,
        "most_answers_of_an_item": max(items.values(), default=0),
        "findings": findings[:5],
    }


def is_sound(result: dict[str, Any], n_expected: int) -> bool:
    """Whether nothing was lost, nothing doubled, and no item was asked about too often."""
    is_clean = not (result["lost"] or result["duplicated"] or result["judged_twice_by_one"] or result["findings"])
    return is_clean and result["acknowledged"] == n_expected and result["most_answers_of_an_item"] <= K


def main() -> None:
    """Run the test, or one of its two processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--judgments", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.port)
        return
    if arguments.judge:
        job = json.load(sys.stdin)
        statuses = asyncio.run(judge_all(job["port"], job["tokens"], job["wanted"], job["seed"], Path(job["log"])))
        print(json.dumps(statuses))
        return
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), arguments.annotators, arguments.judgments, arguments.kills, arguments.seed)
    print(json.dumps({**result, "seconds": round(time.monotonic() - start, 1)}, indent=1))
    sys.exit(not is_sound(result, arguments.annotators * arguments.judgments))


if __name__ == "__main__":
    main()
