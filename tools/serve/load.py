#!/usr/bin/env python3
"""Many clients of `flawtune serve` at once, good ones and bad ones, for some minutes; no answer may be wrong.

    load.py BINARY [--clients 64] [--seconds 600]

Starts the server itself, on this machine's own address, with a detector of drawn gravel. Three of four clients send images and
hold every score against the first one; the others read slowly, send half a request, garbage or no image. Prints what the clients
saw, their times, and the memory of the server. Standard library only; ends by itself.
"""

import argparse
import collections
import http.client
import json
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time


def start(binary, data, *more):
    """The server and its port."""
    command = [binary, "serve", "--quiet", "--listen", "127.0.0.1:0", "--data", data, *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline().strip().rstrip("/").rsplit(":", 1)[1])
    return process, port


def call(port, method, path, body=None, kind="application/json", timeout=120):
    """Status and JSON of an answer."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    client.request(method, path, body, {"Content-Type": kind} if body is not None else {})
    answer = client.getresponse()
    bytes_ = answer.read()
    client.close()
    return answer.status, json.loads(bytes_) if bytes_ else None, answer.headers


def fitted(port, images, name="gravel"):
    """A detector that knows the good images."""
    assert call(port, "POST", "/api/detectors", {"name": name})[0] == 201
    for path in images:
        assert call(port, "POST", f"/api/detectors/{name}/good?name={path.name}", path.read_bytes(), "image/jpeg")[0] == 200
    job = call(port, "POST", f"/api/detectors/{name}/fit", {})[1]
    while job["state"] == "running":
        time.sleep(0.1)
        job = call(port, "GET", f"/api/jobs/{job['id']}")[1]
    assert job["state"] == "done", job


def drawn(binary, folder, size=192, good=20):
    """Images of gravel that the program draws, so many pixels wide and high."""
    options = ["--severity", "2", "--train-good", str(good), "--test-good", "10", "--test-per-type", "4", "--size", str(size)]
    subprocess.run([binary, "synth", "--category", "gravel", *options, "--output-dir", folder, "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    return pathlib.Path(folder) / "gravel"


class Seen:
    """What the clients saw."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.times = []
        self.scores = {}
        self.wrong = []

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def score(self, name, score, seconds):
        with self.lock:
            self.times.append(seconds)
            self.counts["verdicts"] += 1
            if self.scores.setdefault(name, score) != score:
                self.wrong.append((name, score))


def sends(port, images, seen, chance):
    """Sends an image and reads its verdict; comes back when it is told to."""
    name, body = chance.choice(images)
    begun = time.monotonic()
    status, said, headers = call(port, "POST", "/api/detectors/gravel/predict", body, "image/jpeg")
    if status == 200:
        seen.score(name, said["results"][0]["score"], time.monotonic() - begun)
    elif status == 429:
        seen.count("told to come back")
        time.sleep(min(float(headers["Retry-After"]), 2) * chance.random())
    else:
        seen.wrong.append((status, said))


def reads_slowly(port, images, seen, chance):
    """Takes its time over an answer."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"GET /page/style.css HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    size = 0
    while chunk := client.recv(512):
        size += len(chunk)
        time.sleep(0.01)
    client.close()
    seen.count("slow readers" if size > 1000 else "slow readers that were cut")


def sends_half(port, images, seen, chance):
    """Goes away in the middle of an image."""
    _, body = chance.choice(images)
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST /api/detectors/gravel/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body[: len(body) // 2])
    time.sleep(chance.random())
    client.close()
    seen.count("half requests")


def sends_garbage(port, images, seen, chance):
    """Sends what is no HTTP, or no image."""
    if chance.random() < 0.5:
        client = socket.create_connection(("127.0.0.1", port), timeout=60)
        client.sendall(chance.randbytes(200) + b"\r\n\r\n")
        client.recv(1000)
        client.close()
    else:
        status, said, _ = call(port, "POST", "/api/detectors/gravel/predict", chance.randbytes(5000), "image/png")
        if status not in (422, 429):
            seen.wrong.append((status, said))
    seen.count("garbage")


def client(number, port, images, seen, until):
    """A client; every fourth is a bad one."""
    chance = random.Random(number)
    bad = (reads_slowly, sends_half, sends_garbage)
    work = bad[number // 4 % 3] if number % 4 == 3 else sends
    while time.monotonic() < until:
        try:
            work(port, images, seen, chance)
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            if work is sends:
                seen.wrong.append(("cut", repr(error)))
            seen.count(f"cut ({type(error).__name__})")


def memory(process):
    """Megabytes that a process holds."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


def main():
    """Runs the clients and says what they saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = drawn(arguments.binary, folder)
        process, port = start(arguments.binary, f"{folder}/served", "--keep", "500")
        try:
            fitted(port, sorted(data.glob("train/good/*")))
            paths = sorted(data.glob("test/*/*"))
            for size in (64, 700, 1500):
                paths += sorted(drawn(arguments.binary, f"{folder}/{size}", size, 3).glob("test/*/*"))
            images = [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]
            seen, held = Seen(), []
            until = time.monotonic() + arguments.seconds
            threads = [threading.Thread(target=client, args=(n, port, images, seen, until)) for n in range(arguments.clients)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                held.append(memory(process))
                time.sleep(max(arguments.seconds / 20, 0.5))
            for thread in threads:
                thread.join()
            parts = call(port, "GET", "/api/detectors/gravel/parts?limit=1")[1]["counts"]["parts"]
        finally:
            process.terminate()
            status = process.wait(60)
    times = sorted(seen.times)
    at = lambda share: 1e3 * times[min(int(share * len(times)), len(times) - 1)]
    print(f"{arguments.clients} clients, {arguments.seconds:.0f} s: {dict(sorted(seen.counts.items()))}")
    print(f"verdicts/s {len(times) / arguments.seconds:.1f}; ms p50 {at(0.5):.0f}, p99 {at(0.99):.0f}, longest {at(1):.0f}")
    print(f"memory in MB, over the time: {', '.join(f'{m:.0f}' for m in held[::max(len(held) // 10, 1)])}")
    wrong = seen.wrong[:5]
    if parts < seen.counts["verdicts"]:
        wrong.append(f"{parts} parts written down, {seen.counts['verdicts']} verdicts answered")
    if status != 0:
        wrong.append(f"the server ended with {status}")
    print(f"wrong: {wrong or 'nothing'}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
