"""Where the peers live: a virtual environment beside target/, the programs of this repository, processes that answer lines."""
import importlib.util
import os
import subprocess
import sys
import venv

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FOLDER = os.path.join(ROOT, "target", "peers")
INSIDE = "FLAWTUNE_PEERS"


def missing(packages):
    return [p for p in packages if importlib.util.find_spec(p) is None]


def install(packages):
    """Installs from PyPI into the interpreter that runs; none if all went well, else the last line of what went wrong."""
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]


def enter(packages, folder=FOLDER):
    """Goes on in an interpreter that has `packages`: this one, FLAWTUNE_PEERS_PYTHON, or a virtual environment in `folder`.

    The environment is made on first use. Packages that it lacks come from PyPI; nothing else is downloaded.
    """
    lacking = missing(packages)
    if not lacking:
        return
    python = os.environ.get("FLAWTUNE_PEERS_PYTHON") or os.path.join(folder, "bin", "python")
    if os.environ.get(INSIDE) != python:
        if not os.path.exists(python):
            venv.create(folder, with_pip=True)
        os.environ[INSIDE] = python
        os.execv(python, [python, *sys.argv])
    trouble = install(lacking)
    if trouble:
        raise SystemExit(f"cannot install {', '.join(lacking)}: {trouble}")
    importlib.invalidate_caches()


def run_script(name, *arguments, log):
    """Runs a script of this folder in the same interpreter, as a process of its own that gives its memory back."""
    with open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, os.path.join(HERE, name), *arguments]
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if code != 0:
        raise SystemExit(f"{name} ended with exit code {code}: see {log}")


def program(name, variable, example=True):
    """A program built from this repository: by the environment variable, or from target/release."""
    path = os.environ.get(variable) or os.path.join(ROOT, "target", "release", *(["examples"] if example else []), name)
    if not os.path.exists(path):
        crate = {"speed": "flawtune-kernels", "flawtune": "flawtune-cli"}.get(name, "flawtune")
        raise SystemExit(f"{path} is not there: cargo build --release -p {crate}" + (f" --example {name}" if example else ""))
    return path


class Answering:
    """A process that answers every line on its standard input with one line."""

    def __init__(self, command, **options):
        self.name = os.path.basename(command[0])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)

    def line(self):
        answer = self.process.stdout.readline()
        if not answer:
            raise EOFError(f"{self.name} ended with exit code {self.process.wait()}")
        return answer

    def ask(self, work):
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        return self.line()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
