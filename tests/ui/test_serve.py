"""`hfi ui` as people start it: a process of its own, from the first line it prints to the first judgment."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from storage import Store
from tests.ui.people import PASSWORD
from ui.demo_pictures import read_pictures
from ui.demo_project import CATEGORIES, add_demo_project
from ui.serve import PortTakenError, open_port
from ui.settings import UiSettings

START_PROCESSOR_SECONDS = 3.0


@contextmanager
def running(store: Path, *options: str, worker: str = "--no-worker") -> Iterator[tuple[str, psutil.Process]]:
    """`hfi ui` on a free port: all it printed until it was there, and its process."""
    command = [sys.executable, "-m", "hfi.cli", "ui", "--store", str(store), "--port", "0", worker, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watchdog = threading.Timer(300, process.kill)
    watchdog.start()
    try:
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("The pages are at"):
                break
        yield said, psutil.Process(process.pid)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def ask(address: str) -> httpx.Response:
    """The first answer; the socket listens already, so one request is enough."""
    return httpx.get(f"{address}/login", timeout=300)


def test_first_start_leads_to_the_first_judgment(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (said, process):
        used = process.cpu_times()  # the socket listens; Gradio's pages are not begun before the first answers are out
        address = re.findall(r"The pages are at (\S+)", said)[0]
        assert ask(address).status_code == 200
        assert used.user + used.system <= START_PROCESSOR_SECONDS
        assert not any("torch" in name.path for name in process.memory_maps())
        link = re.findall(rf"{address}/start/\S+", said)[0]
        with httpx.Client(base_url=address, headers={"Origin": address}, timeout=300) as client:
            form = {"name": "ada", "password": PASSWORD, "repeated": PASSWORD}
            joined = client.post(link, data=form)
            assert (joined.status_code, joined.headers["location"]) == (303, "/label/demo")
            assert client.get("/label/demo").status_code == 200
            item = client.post("/api/v1/projects/demo/claim", json={"n": 8}).json()["items"][0]
            assert item["purpose"] == "training"
            assert client.get(item["images"][0]["url"]).headers["content-type"] == "image/png"
            row = {"uuid": "0" * 8 + "-0000-4000-8000-" + "0" * 12, "assignmentId": item["id"], "answer": "yes"}
            result = client.post("/api/v1/judgments", json={"judgments": [row]}).json()["results"][0]
            assert result["status"] == "stored" and result["feedback"]["explanation"]
    with running(tmp_path / "store") as (said, process):
        assert "/start/" not in said
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)
        assert time.monotonic() < deadline


def test_port_that_is_taken_is_said_in_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortTakenError, match="Choose another --port"):
            open_port(UiSettings(port=other.getsockname()[1]))


def test_demo_fills_only_a_store_without_projects(tmp_path: Path) -> None:
    with Store.open(tmp_path / "new") as store:
        assert add_demo_project(store)
        assert not add_demo_project(store)
        project = store.get_project("demo")
        assert (project.is_demo, project.categories) == (True, CATEGORIES)
        gold = [store.get_gold(item.id) for item in store.list_items("demo")]
        assert sum(known is not None and known["is_training"] for known in gold) == 5
        assert all(known is None or known["explanation"] for known in gold)
    with Store.open(tmp_path / "old") as store:
        store.create_project("mine")
        assert not add_demo_project(store)
        assert [record.name for record in store.list_projects()] == ["mine"]


def test_demo_pictures_say_where_they_come_from() -> None:
    pictures, note = read_pictures()
    assert len(pictures) >= 60 and note
    for picture in pictures:
        assert picture.prompt and picture.params["model_id"]
        is_rendered = picture.params["model_id"] == "rendered scene"
        assert is_rendered or len(picture.params["model_sha256"]) == 64
        assert is_rendered or not picture.gold


def test_the_worker_starts_with_the_pages_is_replaced_when_it_dies_and_ends_with_them(tmp_path: Path) -> None:
    with running(tmp_path / "store", "--no-demo", worker="--worker") as (_, process):
        first = wait_for_worker(process, other_than=0)
        first.kill()
        workers = [first, wait_for_worker(process, other_than=first.pid)]
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert gone and not alive


def wait_for_worker(process: psutil.Process, *, other_than: int) -> psutil.Process:
    """The pages' worker, once there is one; not the one that was killed."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in process.children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if child.pid != other_than and "work" in child.cmdline():
                    return child
        time.sleep(0.05)
    raise AssertionError("no worker was started within 120 s")
