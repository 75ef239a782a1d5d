"""The tables, as Markdown, from what `peers.py` measured."""
import statistics

F32 = {
    "ort": "ONNX Runtime", "ov-latency": "OpenVINO latency", "ov-throughput": "OpenVINO throughput",
    "ov-streams": "OpenVINO, a stream a core", "torch": "PyTorch, timm",
}
INT8 = {"ort-int8": "ONNX Runtime int8", "ov-int8": "OpenVINO int8"}
# (model, side, batch, threads): times the best f32 peer, share of attainable
TARGETS = {
    ("s", 224, 8, 2): (1.4, 0.93), ("s", 224, 1, 2): (1.35, 0.90), ("s", 224, 8, 1): (1.25, 0.95),
    ("s", 448, 1, 2): (1.35, None), ("s", 448, 4, 2): (1.35, None), ("s", 672, 1, 2): (1.35, None),
    ("b", 224, 8, 2): (1.35, None),
}


def row(cells):
    return "| " + " | ".join(cells) + " |"


def table(header, rows):
    return "\n".join([row(header), "|" + "---|" * len(header), *map(row, rows)])


def name(case):
    threads = case["threads"]
    return f"ViT-{case['model'].upper()}/16, {case['side']} px, batch {case['batch']}, {threads} thread{'s'[:threads > 1]}"


def middle(values):
    return statistics.median(values) if values else None


def number(value, digits=2, missing="n/a"):
    return missing if value is None else f"{value:.{digits}f}"


def ratio(a, b):
    return a / b if a and b else None


def summary(result):
    """What follows from one case's rounds: medians, the best f32 peer, ratios."""
    medians = {engine: middle(values) for engine, values in result["rates"].items()}
    peers = {engine: medians[engine] for engine in F32 if medians.get(engine)}
    best = max(peers, key=peers.get) if peers else None
    case = result["case"]
    target = TARGETS.get((case["model"], case["side"], case["batch"], case["threads"]), (None, None))
    return {
        "medians": medians,
        "best_f32_peer": best,
        "flawtune_over_best_f32_peer": ratio(medians.get("flawtune"), peers.get(best)),
        "target_over_best_f32_peer": target[0],
        "fma": middle(result["yards"]["fma"]),
        "attainable": middle(result["yards"]["attainable"]),
        "share_of_attainable": middle(result["yards"]["share"]),
        "target_share_of_attainable": target[1],
        "int8_over_onnxruntime_int8": ratio(medians.get("flawtune-int8"), medians.get("ort-int8")),
        "int8_over_f32": ratio(medians.get("flawtune-int8"), medians.get("flawtune")),
    }


def aimed(value, target):
    return number(value) + (f" (≥ {target:g})" if target else "")


def f32_table(results):
    engines = [e for e in F32 if any(e in r["rates"] for r in results)]
    header = ["case", "flawtune", *(F32[e] for e in engines), "flawtune / best f32 peer", "FMA", "attainable", "share of attainable"]
    rows = []
    for result in results:
        s = result["summary"]
        cells = [number(s["medians"].get("flawtune"))]
        for engine in engines:
            text = number(s["medians"].get(engine))
            cells.append(f"**{text}**" if engine == s["best_f32_peer"] else text)
        cells += [aimed(s["flawtune_over_best_f32_peer"], s["target_over_best_f32_peer"]), number(s["fma"], 0),
                  number(s["attainable"], 0), aimed(s["share_of_attainable"], s["target_share_of_attainable"])]
        rows.append([name(result["case"]), *cells])
    return table(header, rows)


def int8_table(results):
    header = ["case", "flawtune int8", *INT8.values(), "flawtune int8 / ONNX Runtime int8 (≥ 1.4)",
              "flawtune int8 / flawtune f32 (≥ 1.7)"]
    rows = []
    for result in results:
        s = result["summary"]
        rates = [number(s["medians"].get(e)) for e in ("flawtune-int8", *INT8)]
        ratios = [number(s["int8_over_onnxruntime_int8"]), number(s["int8_over_f32"])]
        rows.append([name(result["case"]), *rates, *ratios])
    return table(header, rows)


def chosen(results):
    """Which candidate spoke for each peer."""
    lines = []
    for result in results:
        parts = [f"{(F32 | INT8)[e]}: {label}" for e, label in result["chosen"].items()]
        lines.append(f"- {name(result['case'])}: " + "; ".join(parts))
    return "\n".join(lines)


def memory_table(memory):
    base = memory.get("ONNX Runtime", {}).get("median")
    rows = [[label, number(m["median"], 0), number(ratio(m["median"], base))] for label, m in memory.items()]
    return table(["process, batch 8 at 224 px", "peak resident MiB", "/ ONNX Runtime (≤ 0.4)"], rows)


def start_table(start):
    rows = [[label, number(s["median"], 3), number(min(s["values"]), 3)] for label, s in start.items()]
    return table(["process, one image of 224 px", "seconds to the first result (≤ 0.3)", "best"], rows)


def machine():
    """Processor, its vector instructions, kernel's count of cores."""
    facts, cores = {}, 0
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            key, _, value = (part.strip() for part in line.partition(":"))
            cores += key == "processor"
            facts.setdefault(key, value)
    flags = facts.get("flags", facts.get("Features", "")).split()
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp")
    return {
        "model": facts.get("model name", "?"), "family": facts.get("cpu family"), "number": facts.get("model"),
        "cores": cores, "flags": [f for f in wanted if f in flags],
    }


def machine_line(about, versions, when):
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (f"{about['model']} (family {about['family']}, model {about['number']}), {about['cores']} cores, "
            f"{' '.join(about['flags'])}; {packages}; {when}")


def markdown(data):
    results = data["cases"]
    parts = [machine_line(data["machine"], data["versions"], data["when"])]
    if results:
        parts += [f"Images/s, f32, medians of {data['rounds']} interleaved rounds; the best peer in bold, targets in brackets, "
                  "yardsticks (GFLOP/s) from flawtune's own turns:", f32_table(results)]
        if data["int8"]:
            parts += ["int8, the same rounds:", int8_table(results)]
        parts += ["What spoke for each peer, the fastest of its candidates:", chosen(results)]
    if data.get("memory"):
        parts.append(memory_table(data["memory"]))
    if data.get("start"):
        parts.append(start_table(data["start"]))
    if data["skipped"]:
        parts.append("\n".join(f"- skipped: {line}" for line in data["skipped"]))
    return "\n\n".join(parts)
