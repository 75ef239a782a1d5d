#!/usr/bin/env python3
"""Checks of `flawtune serve` from outside: a walk through the page in a browser, the API as it describes itself, many clients.

    serve.py BINARY CHROMIUM MODULES [SCHEMATHESIS]

MODULES holds node_modules with what the walk wants; SCHEMATHESIS is the program of that name. Ends with 1 where a check fails.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools/serve"))
from load import drawn, fitted, start  # noqa: E402

SECONDS = 420


def run(command, **more):
    """Whether a command succeeds."""
    return subprocess.run(command, timeout=SECONDS, check=False, **more).returncode == 0


def walk(binary, chromium, modules, folder, images):
    """The page, as a visitor walks through it."""
    for name, pattern, most in (("good", "train/good/*", 20), ("new", "test/good/*", 4), ("flaws", "test/hole/*", 4)):
        (folder / name).mkdir()
        for path in sorted(images.glob(pattern))[:most]:
            shutil.copy(path, folder / name)
    process, port = start(binary, str(folder / "walked"))
    try:
        script = ROOT / "crates/server/tests/page/walk.mjs"
        command = ["node", str(script), f"http://127.0.0.1:{port}/", str(folder), str(folder / "shots")]
        return run(command, cwd=modules, env={**os.environ, "CHROMIUM": chromium})
    finally:
        process.terminate()
        process.wait(60)


def described(binary, schemathesis, folder, images):
    """The API keeps what it promises of itself, whatever it is sent."""
    process, port = start(binary, str(folder / "described"))
    try:
        fitted(port, sorted(images.glob("train/good/*"))[:8])
        checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
        command = [schemathesis, "--config-file", str(ROOT / "tools/serve/schemathesis.toml"), "run"]
        command += [f"http://127.0.0.1:{port}/api/openapi.json", "--checks", checks, "-n", "25", "--seed", "1", "--no-color"]
        # events never end; a detector that is removed is not there for the next request
        command += ["--phases", "coverage,fuzzing", "--exclude-path", "/api/events", "--exclude-method", "DELETE"]
        return run(command, cwd=folder)
    finally:
        process.terminate()
        process.wait(60)


def main():
    """All checks."""
    binary, chromium, modules, *schemathesis = sys.argv[1:]
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        images = drawn(binary, name)
        if not walk(binary, chromium, modules, folder, images):
            failed.append("walk through the page")
        if schemathesis:
            if not described(binary, schemathesis[0], folder, images):
                failed.append("API by schemathesis")
        if not run([sys.executable, str(ROOT / "tools/serve/load.py"), binary, "--clients", "32", "--seconds", "20"]):
            failed.append("many clients")
    for what in failed:
        print(f"failed: {what}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
