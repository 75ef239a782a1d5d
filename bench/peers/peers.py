#!/usr/bin/env python3
"""flawtune beside ONNX Runtime, OpenVINO and PyTorch: forward pass in f32 and int8, peak memory, time to the first result.

    python bench/peers/peers.py                            # the default cases, 10 to 12 minutes on two idle cores
    python bench/peers/peers.py --with torch,nncf          # PyTorch/timm and OpenVINO's own int8 too
    python bench/peers/peers.py --quick                    # one small round of two cases: does everything run?
    python bench/peers/peers.py --cases s224x8@1,b224x8@2 --rounds 9 --parts forward --json peers.json

Needs `cargo build --release -p flawtune-kernels --example speed` and `cargo build --release -p flawtune-cli` (or
FLAWTUNE_SPEED and FLAWTUNE_BINARY). Makes a virtual environment in target/peers on first use, from PyPI: numpy, onnx,
onnxruntime, openvino; torch, timm and nncf only if asked for by --with. Nothing else is downloaded: weights are random.
A case is MODELxBATCH@THREADS: `s448x4@2` is ViT-S/16 at 448 px, batch 4, two threads.

Every peer is a process of its own; only one computes at a time, and rounds take turns, engine after engine, starting with
another one each time. Networks are written first, once (2.5 GiB in target/peers/models; minutes). For each case a peer first tries its candidates (spellings of the network, spinning or not, latency or
streams; engines.py) and goes on with the fastest. The table, in Markdown, is on standard output; progress on standard error.
"""
import argparse
import datetime
import importlib.metadata
import json
import os
import re
import shutil
import sys
import time
import zlib

import environment
import flawtune
import processes
import report

PACKAGES = ["numpy", "onnx", "onnxruntime", "openvino"]
EXTRAS = {"torch": ["torch", "timm", "safetensors"], "nncf": ["nncf"]}
CASES = "s224x1@1,s224x8@1,s224x1@2,s224x8@2,s448x1@2,s448x4@2,s672x1@2,b224x8@2"
QUICK = "s224x1@1,s224x8@2"
# a moment for the last engine's threads to fall asleep
PAUSE = 0.05


def note(text):
    print(text, file=sys.stderr, flush=True)


def parse_case(text):
    found = re.fullmatch(r"([sb])(\d+)x(\d+)@(\d+)", text.strip())
    if not found or int(found[2]) % 16 or int(found[2]) == 0 or int(found[3]) == 0 or int(found[4]) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a case such as s224x8@2 (sides in multiples of 16)")
    return {"model": found[1], "side": int(found[2]), "batch": int(found[3]), "threads": int(found[4])}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    split = lambda text: [t for t in text.split(",") if t]
    parser.add_argument("--cases", type=lambda text: [parse_case(t) for t in split(text)], help=f"default: {CASES}")
    parser.add_argument("--with", dest="extras", type=split, default=[], metavar="LIST", help="of torch, nncf")
    parser.add_argument("--parts", type=split, default=["forward", "int8", "memory", "start"], metavar="LIST",
                        help="of forward, int8, memory, start (default: all)")
    parser.add_argument("--rounds", type=int, help="default: 5; 1 with --quick")
    parser.add_argument("--seconds", type=float, help="least time of a measurement (default: 0.5; 0.1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="one short round of two cases")
    parser.add_argument("--prepare", action="store_true", help="only make the environment and write the networks (minutes)")
    parser.add_argument("--json", metavar="FILE", help="everything measured, round by round")
    parser.add_argument("--weights", metavar="FILE", help="weights for the processes of flawtune (default: random ones)")
    parser.add_argument("--model-name", default="dinov3_vits16", help="backbone of --weights")
    parser.add_argument("--predict", metavar="ARGUMENTS",
                        help="what `flawtune predict` gets before the image (default: a model fitted to 320 drawn images)")
    parser.add_argument("--environment", default=environment.FOLDER, metavar="DIR")
    args = parser.parse_args()
    for given, known in ((args.extras, EXTRAS), (args.parts, ("forward", "int8", "memory", "start"))):
        for name in given:
            if name not in known:
                parser.error(f"'{name}' is none of {', '.join(known)}")
    args.cases = args.cases or [parse_case(c) for c in (QUICK if args.quick else CASES).split(",")]
    args.rounds = args.rounds or (1 if args.quick else 5)
    args.seconds = args.seconds or (0.1 if args.quick else 0.5)
    return args


def model_folder(base):
    """Where built networks lie; another version of the builders gets another folder, and old ones go."""
    sum_ = 0
    for name in ("network.py", "quantise.py"):
        with open(os.path.join(environment.HERE, name), "rb") as file:
            sum_ = zlib.crc32(file.read(), sum_)
    top = os.path.join(base, "models")
    folder = os.path.join(top, f"{sum_:08x}")
    for old in os.listdir(top) if os.path.isdir(top) else []:
        if old != os.path.basename(folder):
            shutil.rmtree(os.path.join(top, old), ignore_errors=True)
    os.makedirs(folder, exist_ok=True)
    return folder


class Worker:
    """A peer's process, started anew where a runtime took it down; what it writes to standard error is kept in a log."""

    def __init__(self, engine, logs):
        self.engine, self.log = engine, os.path.join(logs, f"{engine}.log")
        self.start("w")

    def start(self, mode="a"):
        command = [sys.executable, os.path.join(environment.HERE, "worker.py"), self.engine]
        with open(self.log, mode, encoding="utf-8") as log:
            self.process = environment.Answering(command, stderr=log)

    def request(self, **work):
        try:
            return json.loads(self.process.ask(json.dumps(work)))
        except (EOFError, BrokenPipeError) as error:
            self.start()
            return {"skipped": f"{error or 'the process ended'}; see {self.log}"}


def forward(case, args, workers, speed, precisions, folder, skipped):
    """One row: candidates are chosen, then rounds take turns."""
    label = report.name(case)
    flawtunes = {"flawtune": "f32"}
    if "int8" in args.parts and "int8" in precisions:
        flawtunes["flawtune-int8"] = "int8"
    result = {"case": case, "rates": {}, "chosen": {}, "tried": {}, "yards": {"fma": [], "attainable": [], "share": []}}
    running = []
    for worker in workers:
        answer = worker.request(load={**case, "folder": folder})
        if "skipped" in answer:
            skipped.append(f"{worker.engine}, {label} ({answer['skipped']})")
            note(f"skipped: {skipped[-1]}")
            continue
        running.append(worker)
        result["chosen"][worker.engine], result["tried"][worker.engine] = answer["chosen"], answer["tried"]
        note(f"{label}: {worker.engine} runs '{answer['chosen']}'")
    # how many rounds fill a measurement
    expected = {engine: speed.measure(case, 0, None, p)["rate"] for engine, p in flawtunes.items()}
    turns = [*flawtunes, *running]
    for turn in range(args.rounds):
        first = turn % len(turns)
        for who in turns[first:] + turns[:first]:
            time.sleep(PAUSE)
            if isinstance(who, str):
                found = speed.measure(case, args.seconds, expected[who], flawtunes[who])
                result["rates"].setdefault(who, []).append(found["rate"])
                if who == "flawtune":
                    for yard, values in result["yards"].items():
                        values.append(found[yard])
                continue
            answer = who.request(measure=args.seconds)
            if "rate" in answer:
                result["rates"].setdefault(who.engine, []).append(answer["rate"])
            else:
                skipped.append(f"{who.engine}, {label}, one round ({answer['skipped']})")
    result["summary"] = report.summary(result)
    medians = "  ".join(f"{e} {report.number(v)}" for e, v in result["summary"]["medians"].items())
    note(f"{label}: {medians}  | flawtune / best f32 peer {report.number(result['summary']['flawtune_over_best_f32_peer'])}")
    return result


def versions(args):
    names = [*PACKAGES, *(p for extra in args.extras for p in EXTRAS[extra] if p != "safetensors")]
    out = {"Python": sys.version.split()[0]}
    for name in names:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out


def main():
    args = arguments()
    environment.enter(PACKAGES, args.environment)
    skipped = []
    for extra in list(args.extras):
        lacking = environment.missing(EXTRAS[extra])
        trouble = environment.install(lacking) if lacking else None
        if trouble:
            args.extras.remove(extra)
            skipped.append(f"{extra} ({trouble})")
            note(f"skipped: {skipped[-1]}")
    started = time.time()
    folder = model_folder(args.environment)
    wanted = [*args.extras, *(["int8"] if "int8" in args.parts else [])]
    cases = [case for case in args.cases if {"forward", "int8"} & set(args.parts)]
    logs = os.path.join(args.environment, "logs")
    os.makedirs(logs, exist_ok=True)
    note("writing the networks that are not there yet")
    log = os.path.join(logs, "prepare.log")
    environment.run_script("prepare.py", folder, ",".join(wanted), json.dumps(cases), log=log)
    if args.prepare:
        return
    data = {
        "machine": report.machine(), "versions": versions(args), "when": datetime.date.today().isoformat(),
        "rounds": args.rounds, "seconds": args.seconds, "int8": "int8" in args.parts, "cases": [], "skipped": skipped,
    }
    if cases:
        speed = flawtune.Speed()
        precisions = speed.precisions()
        engines = ["ort", "ov-latency", "ov-throughput", "ov-streams", *(["torch"] if "torch" in args.extras else [])]
        engines = (engines if "forward" in args.parts else []) + (list(report.INT8) if data["int8"] else [])
        workers = [Worker(engine, logs) for engine in engines]
        for case in cases:
            data["cases"].append(forward(case, args, workers, speed, precisions, folder, skipped))
        for worker in workers:
            worker.process.close()
    if {"memory", "start"} & set(args.parts):
        weights = ["--model-name", args.model_name, "--weights", args.weights] if args.weights else None
        predict = args.predict.split() if args.predict else None
        threads = data["machine"]["cores"]
        data |= processes.measure(folder, threads, 1 if args.quick else 7, args.parts, "torch" in args.extras, weights, predict,
                                  lambda text: (skipped.append(text.removeprefix("skipped: ")), note(text)))
    data["took_seconds"] = round(time.time() - started)
    print(report.markdown(data))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
    note(f"took {data['took_seconds']} s")


if __name__ == "__main__":
    main()
