"""Compares what two builds of flawtune printed and wrote; called by tools/same_bits.sh. Standard library only.

compare.py RENAMED arguments JOB ARGUMENT...   the arguments for NEW, one a line
compare.py RENAMED job JOB OLD_DIR NEW_DIR     one line, and a few examples where they differ; exit code 1 then
"""

import csv
import fnmatch
import io
import json
import pickle
import re
import struct
import sys
import zipfile
from pathlib import Path

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w])")
DIGEST = re.compile(r"[0-9a-f]{16,}")
EXAMPLES = 5
# records with times and arguments in them, plots and pages (words and looks; their numbers are in the files beside them)
NOT_COMPARED = ("run.json", "*.svg", "*.html", "*.md", "*.tfevents*", "stderr", "*.log", "*.lock")


class Renamed:
    def __init__(self, path):
        self.keys, self.files, self.gone, self.added, self.args, self.time = {}, {}, [], [], [], []
        for line in Path(path).read_text().splitlines():
            words = line.split("#")[0].split()
            if not words:
                continue
            kind, rest = words[0], words[1:]
            if kind == "key":
                self.keys[rest[0]] = rest[1]
            elif kind == "file":
                self.files[rest[0]] = rest[1]
            elif kind in ("gone", "added", "time"):
                getattr(self, kind).append(rest[0])
            elif kind == "args":
                at = rest.index("=>")
                self.args.append((rest[0], rest[1:at], rest[at + 1 :]))
            else:
                sys.exit(f"{path}: '{kind}' is neither key, gone, added, file, args nor time")

    def arguments(self, job, words):
        for which, old, new in self.args:
            if not fnmatch.fnmatch(job, which):
                continue
            if not old:
                words = words + new
            for i in range(len(words) - len(old), -1, -1):
                if old and words[i : i + len(old)] == old:
                    words = words[:i] + new + words[i + len(old) :]
        return words

    def timed(self, key):
        return any(fnmatch.fnmatch(key, pattern) for pattern in self.time)


class Job:
    def __init__(self, renamed):
        self.renamed, self.values, self.words, self.differences = renamed, 0, 0, []

    def differ(self, where, old, new):
        self.differences.append(f"{where}: {str(old)[:80]} -> {str(new)[:80]}")

    def same(self, where, old, new):
        """Two plain values; text counts as words unless it is a digest."""
        self.values += 1
        if type(old) is not type(new):
            self.differ(where, old, new)
        elif isinstance(old, float):
            if struct.pack("<d", old) != struct.pack("<d", new):
                self.differ(where, repr(old), repr(new))
        elif isinstance(old, str) and not DIGEST.fullmatch(old):
            self.words += old != new
        elif old != new:
            self.differ(where, old, new)

    def tree(self, where, old, new):
        if isinstance(old, dict) and isinstance(new, dict):
            old = {self.renamed.keys.get(k, k) if isinstance(k, str) else k: v for k, v in old.items()}
            for key in [*old, *(k for k in new if k not in old)]:
                at = f"{where}.{key}" if where else str(key)
                if self.renamed.timed(str(key)):
                    continue
                if key not in new:
                    if not matches(at, self.renamed.gone):
                        self.differ(at, "there", "missing")
                elif key not in old:
                    if not matches(at, self.renamed.added):
                        self.differ(at, "missing", "there")
                else:
                    self.tree(at, old[key], new[key])
        elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
            if len(old) != len(new):
                self.differ(where, f"{len(old)} entries", f"{len(new)} entries")
            for i, (a, b) in enumerate(zip(old, new)):
                self.tree(f"{where}[{i}]", a, b)
        else:
            self.same(where, old, new)

    def file(self, where, old, new):
        a, b = old.read_bytes(), new.read_bytes()
        suffix = old.suffix
        try:
            if suffix == ".json" or old.name == "stdout" and a.lstrip()[:1] in (b"{", b"["):
                self.tree(where, json_of(a), json_of(b))
            elif suffix == ".jsonl":
                self.tree(where, json_of(a), json_of(b))
            elif suffix == ".csv" or old.name == "stdout" and b",score," in a[:200]:
                self.tree(where, table(a), table(b))
            elif suffix == ".pt":
                self.tree(where, torch_file(a), torch_file(b))
            elif suffix in (".flaw", ".safetensors"):
                self.tree(where, tensors(a), tensors(b))
            elif old.name == "stdout":
                self.tree(where, numbers(a), numbers(b))
            else:
                self.values += 1
                if a != b:
                    self.differ(where, f"{len(a)} bytes", f"{len(b)} other bytes")
        except Exception as error:  # a file that one side cannot be read from is a difference too
            self.differ(where, "readable", repr(error))

    def folder(self, old, new):
        found = {str(p.relative_to(old)): p for p in sorted(old.rglob("*")) if p.is_file()}
        other = {str(p.relative_to(new)): p for p in sorted(new.rglob("*")) if p.is_file()}
        found = {self.renamed.files.get(name, name): p for name, p in found.items()}
        for name in sorted({*found, *other}):
            if any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in NOT_COMPARED):
                continue
            if name not in other:
                if not matches(name, self.renamed.gone):
                    self.differ(name, "there", "missing")
            elif name not in found:
                if not matches(name, self.renamed.added):
                    self.differ(name, "missing", "there")
            else:
                self.file(name, found[name], other[name])


def matches(text, patterns):
    return any(fnmatch.fnmatch(text, pattern) for pattern in patterns)


def json_of(data):
    """A JSON text, or the list of those on its lines."""
    text = data.decode()
    try:
        return as_one_row(json.loads(text))
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


# where a detector's evaluation had its numbers before it had rows, and where in a row they are now
OF_ROW = {
    "auroc": "metrics.auroc",
    "auroc_interval": "metrics.auroc_interval",
    "average_precision": "metrics.average_precision",
    "threshold": "metrics.threshold",
    "false_alarms": "metrics.false_alarms",
    "found": "metrics.found",
    "f1_max": "f1_max",
    "pixels": "pixels",
    "scorer": "scorer",
    "per_defect_type": "by_type",
}
OF_SPLIT = {
    "protocol": "protocol",
    "leaky": "leaky",
    "seed": "seed",
    "test_set_hash": "test_set_hash",
    "test_normals": "good",
    "test_defects": "defects",
}


def as_one_row(document):
    """An evaluation of a detector, in rows or not, as the numbers that both forms have under the names of the older."""
    if not isinstance(document, dict) or "bank_patches" not in document:
        return document
    if "rows" not in document:
        return {k: v for k, v in document.items() if k != "bundle"}
    row, split = document["rows"][0], document["split"]
    found = {k: v for k, v in document.items() if k not in ("rows", "split", "detector")}
    for name, path in OF_ROW.items():
        value = row
        for key in path.split("."):
            value = value[key]
        found[name] = value
    found.update({name: split[key] for name, key in OF_SPLIT.items()})
    return found


def table(data):
    rows = list(csv.reader(io.StringIO(data.decode())))
    return [dict(zip(rows[0], map(as_number, row))) for row in rows[1:]]


def as_number(text):
    return Exactly(text) if NUMBER.fullmatch(text) else text


class Exactly:
    """Text that is compared letter by letter."""

    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return self.text == other.text

    def __str__(self):
        return self.text


def numbers(data):
    """The numbers of a printed table, in order; lines that tell times are left out."""
    lines = [l for l in data.decode().splitlines() if not re.search(r"\d\s?(s|ms|seconds)\b|MiB|KiB", l)]
    return [Exactly(n) for line in lines for n in NUMBER.findall(line)]


def tensors(data):
    """Header and tensors of a safetensors file, metadata that is JSON parsed."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    start, found = 8 + length, {}
    for name, entry in header.items():
        if name == "__metadata__":
            found["metadata"] = {k: json.loads(v) if v[:1] in "{[" else v for k, v in entry.items()}
            continue
        first, last = entry["data_offsets"]
        raw = data[start + first : start + last]
        if raw[:2] == b"PK":
            found[name] = torch_file(raw)
        elif raw[:1] == b"{" and entry["dtype"] == "U8":
            found[name] = json.loads(raw)
        else:
            found[name] = {"dtype": entry["dtype"], "shape": entry["shape"], "bytes": raw}
    return found


class Reader(pickle.Unpickler):
    """Plain values, and tensors as their bytes; nothing of a class is run."""

    def __init__(self, archive, prefix):
        super().__init__(io.BytesIO(archive.read(f"{prefix}/data.pkl")))
        self.archive, self.prefix = archive, prefix

    def persistent_load(self, key):
        return self.archive.read(f"{self.prefix}/data/{key[2]}")

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if name.startswith("_rebuild"):
            return lambda storage, offset, shape, stride, *_: {
                "shape": list(shape), "offset": offset, "stride": list(stride), "bytes": storage,
            }
        return f"{module}.{name}"


def torch_file(data):
    archive = zipfile.ZipFile(io.BytesIO(data))
    prefix = next(n for n in archive.namelist() if n.endswith("/data.pkl"))[: -len("/data.pkl")]
    return Reader(archive, prefix).load()


def main():
    renamed, what, job = Renamed(sys.argv[1]), sys.argv[2], sys.argv[3]
    if what == "arguments":
        print("\n".join(renamed.arguments(job, sys.argv[4:])))
        return 0
    old, new = Path(sys.argv[4]), Path(sys.argv[5])
    it = Job(renamed)
    it.folder(old, new)
    code = (old / "exit_code").read_text().strip()
    if code != "0":
        said = (old / "stderr").read_text().strip().splitlines()
        it.differ("exit code of OLD", code, said[-1] if said else "")
    new_code = (new / "exit_code").read_text().strip()
    if new_code not in ("0", code):
        said = (new / "stderr").read_text().strip().splitlines()
        it.differ("what NEW said", "", said[-1] if said else "")
    words = f", {it.words} texts are worded otherwise" if it.words else ""
    if not it.differences:
        print(f"{job}: same, {it.values} values{words}")
        return 0
    print(f"{job}: {len(it.differences)} of {it.values} values DIFFER{words}")
    for line in it.differences[:EXAMPLES]:
        print(f"    {line}")
    if len(it.differences) > EXAMPLES:
        print(f"    and {len(it.differences) - EXAMPLES} more")
    return 1


sys.exit(main())
