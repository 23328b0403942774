"""A server under load: clients that come by a schedule, at 1, 2 and 4 times what it can do, whether it answers or not.

    python benchmarks/serving.py [--processes 1,2] [--seconds 20]

What it can do is first measured by clients that wait for their answers. A latency counts from the time at which the
request was due, so that one that had to wait for a connection is late, too. Every request is one photo with a face.
"""

import argparse
import http.client
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
from environments import keep_to_two_cores
from matplotlib.cbook import get_sample_data

from pipeline.base.signals import end_cleanly

CLIENTS = 4  # that wait for their answers
CONNECTIONS = 160  # of clients that do not, at 10 addresses: one address may have 32
TIMEOUT = 60.0  # seconds


@contextmanager
def serving(processes: int) -> Iterator[int]:
    """The port of a server that has no limit to what one client asks for in a second."""
    command = [sys.executable, "-m", "pipeline", "serve", "--port", "0", "--rate", "1000000"]
    server = subprocess.Popen([*command, "--processes", str(processes)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        port = urlsplit(server.stderr.readline().split()[2].rstrip(";")).port
        assert port
        yield port
    finally:
        server.terminate()
        server.communicate()


def ask(port: int, image: bytes, number: int) -> int:
    """The status of the answer; 0 where none comes."""
    source = (f"127.0.0.{1 + number % 10}", 0)
    connection = http.client.HTTPConnection("127.0.0.1", port, TIMEOUT, source)
    try:
        connection.request("POST", "/v1/read", image, {"Content-Type": "image/jpeg"})
        with connection.getresponse() as answer:
            answer.read()
            return answer.status
    except OSError:
        return 0
    finally:
        connection.close()


def capacity(port: int, image: bytes, seconds: float) -> float:
    """Answers a second to CLIENTS that ask again when they are answered."""
    end = time.perf_counter() + seconds

    def client(number: int) -> int:
        count = 0
        while time.perf_counter() < end:
            count += ask(port, image, number) == 200
        return count

    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answered = sum(pool.map(client, range(CLIENTS)))
    return answered / (time.perf_counter() - start)


def load(port: int, image: bytes, rate: float, seconds: float) -> str:
    """Ask `rate` times a second. A row of the table."""
    start = time.perf_counter()

    def client(number: int) -> tuple[int, float]:
        due = start + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        status = ask(port, image, number)
        return status, time.perf_counter() - due

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = list(pool.map(client, range(max(1, round(rate * seconds)))))
    took = time.perf_counter() - start
    statuses = Counter(status for status, _ in answers)
    late = [latency for status, latency in answers if status == 200] or [float("nan")]
    middle, most = np.percentile(late, [50, 99])
    lost = len(answers) - statuses[200] - statuses[503]
    return f"{len(answers):8}  {statuses[200] / took:9.1f}  {middle:8.2f}  {most:8.2f}  {statuses[503]:7}  {lost:6}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2", help="numbers of processes, with commas between (default 1,2)")
    parser.add_argument("--seconds", type=float, default=20, help="of each load (default 20)")
    args = parser.parse_args()
    keep_to_two_cores()
    end_cleanly()  # the server's end does not depend on how this ends
    with get_sample_data("grace_hopper.jpg") as file:
        image = file.read()
    print(f"load average before the start: {os.getloadavg()[0]:.1f}")
    print("processes  load  requests  answers/s  median s  99% in s  refused  failed", flush=True)
    for processes in map(int, args.processes.split(",")):
        with serving(processes) as port:
            able = capacity(port, image, args.seconds)
            print(f"{processes:9}  waits {able:17.1f}", flush=True)
            for times in (1, 2, 4):
                print(f"{processes:9}  {times:3}x  {load(port, image, times * able, args.seconds)}", flush=True)


if __name__ == "__main__":
    main()
