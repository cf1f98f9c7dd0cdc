"""RESULTS.md and RESULTS.html from what compare-kafka.sh has left: results.py DIRECTORY."""

import html
import json
import os
import sys

OUT = sys.argv[1]
BROKERS = (("kafka", "Apache Kafka"), ("ringtail", "Ringtail"))
MODES = (
    ("flush", "Acknowledged when on stable storage",
     "Ringtail `durability=flush`, Kafka `log.flush.interval.messages=1`: equal promises."),
    ("write", "Acknowledged earlier",
     "**Unequal:** Ringtail `durability=write` has given the record to the device, Kafka's default has it in the page "
     "cache only. Ringtail promises more here."),
)
LOADS = (
    ("ceiling", "closed loop: 16 producers, 4 consumers, 16 partitions, batches of one record of 1 KiB"),
    ("steady", "the same shape in open loop, at the offered rate"),
    ("trickle", "100 records/s on one connection"),
    ("streaming", "closed loop: 2 producers and 2 consumers, batches of 256 KiB"),
)
HEAD = ["load", "broker", "records/s", "MB/s", "p50", "p99", "p99.9", "end to end p50", "p99", "broker CPU",
        "client CPU", "RSS MiB", ""]


def path(*parts):
    return os.path.join(OUT, *parts)


def load_json(*parts):
    with open(path(*parts)) as file:
        return json.load(file)


def words(*parts):
    with open(path(*parts)) as file:
        return file.read().split()


def duration(ns):
    """Three digits and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            value = ns / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{ns:.0f} ns"


def percentile(report, column, name):
    found = report["columns"].get(column, {}).get("percentiles", {}).get(name)
    return duration(found["ns"]) if found else "–"


def row(mode, load, broker, title):
    """One line of a table, or None for a load that was not run."""
    place = f"{mode}-{load}-{broker}"
    if not os.path.exists(path(place, "report.json")):
        return None
    report, counters = load_json(place, "report.json"), None
    before_cpu, _, after_cpu, resident, status = map(float, words(place, "broker.txt"))
    rate, counters = report["rate"], report["counters"]
    due = counters["acked_records"] + counters["failed_records"] + counters["timed_out_records"]
    # The broker's CPU was taken around the whole run, so all its records share it, those of the warm-up too.
    produced = max(1, sum(second["acked_records"] for second in report["seconds"]))
    client_ns = report["generator_cpu"]["ns_per_record"] * (due + counters["consumed_records"]) / max(1, due)
    notes = []
    if report["closed_loop"]:
        notes.append("closed loop")
    if status == 2:
        notes.append("**invalid: the generator was late**")
    if rate["sustained"] is False:
        notes.append("**rate not sustained**")
    if load == "ceiling" and not os.path.exists(path(place, "steady.txt")):
        notes.append("**windows never agreed within 3 %**")
    failed = counters["failed_records"] + counters["timed_out_records"]
    if failed:
        notes.append(f"**{failed} records failed**")
    return [
        load, f"[{title}]({place}/report.html)", f'{rate["achieved_records_per_s"]:,.0f}',
        f'{rate["achieved_bytes_per_s"] / 1e6:,.1f}',
        *(percentile(report, "latency", name) for name in ("p50", "p99", "p99.9")),
        *(percentile(report, "end_to_end", name) for name in ("p50", "p99")),
        f"{(after_cpu - before_cpu) / produced * 1e6:,.1f}", f"{client_ns / 1e3:,.1f}", f"{resident / 2**20:,.0f}",
        ", ".join(notes),
    ]


def machine_lines():
    for place in sorted(os.listdir(OUT)):
        if os.path.exists(path(place, "report.json")):
            machine = load_json(place, "report.json")["setting"]["machine"]
            break
    else:
        sys.exit("no run has left a report")
    cores = f'pinned to cores {os.environ["CORES"]}' if os.environ.get("CORES") else "not pinned"
    yield (f'{machine["cpus_online"]} × {machine["cpu_model"]}, {machine["memory_bytes"] / 2**30:.0f} GiB, '
           f'kernel {machine["kernel"]}, governor {machine["governor"]}, {machine["file_system"].split(" ")[0]}.')
    yield (f"Brokers and load share the machine, the load with priority; brokers {cores}. Kafka 4.3.1 with a heap of "
           f'{os.environ.get("HEAP", "1g")} and the JVM flags of its start script.')
    if os.environ.get("QUICK"):
        yield ("**`--quick`: loads of seconds, not of the ten minutes in which garbage collection, write-back and laps "
               "of the journal show. For orientation only.**")


def mode_section(mode, title, about):
    table = [row(mode, load, broker, name) for load, _ in LOADS for broker, name in BROKERS]
    table = [line for line in table if line]
    if not table:
        return
    yield ("h2", title)
    yield ("p", about)
    if os.path.exists(path(f"{mode}-offered.txt")):
        steady = f"{mode}-steady-ringtail"
        lasted = load_json(steady, "report.json")["workload"]["duration_ns"] if os.path.exists(path(steady, "report.json")) else 0
        yield ("p", f'Offered in *steady*: {int(words(f"{mode}-offered.txt")[0]):,} records/s, 60 % of the ceiling of '
                    f"the slower one, for {lasted / 1e9:.0f} s.")
    yield ("table", HEAD, table)
    idle = []
    for broker, name in BROKERS:
        if os.path.exists(path(f"{mode}-idle-{broker}.txt")):
            before, _, after, _ = map(float, words(f"{mode}-idle-{broker}.txt"))
            idle.append(f"{name} {(after - before) / 5 * 100:.1f} %")
    if idle:
        yield ("p", f'CPU of the idle broker, as a share of a core: {", ".join(idle)}.')


def cold_section():
    if not os.path.exists(path("cold", "compare.json")):
        return
    result = load_json("cold", "compare.json")
    yield ("h2", "Cold start, in fresh processes")
    yield ("p", "From the start of the process to the first acknowledged record, and 200 records/s just after it; base is "
                "Kafka, candidate is Ringtail, durable.")
    table = []
    for finding in result["findings"]:
        name = finding["name"]
        if name.endswith("records/s") or "generator" in name:
            continue
        show = (lambda value: f"{value / 2**20:,.0f} MiB") if name.endswith("RSS") else duration
        medians = ["–" if value is None else show(value) for value in (finding["base_median"], finding["candidate_median"])]
        ratio, low, high = (finding.get(key) for key in ("ratio", "ratio_low", "ratio_high"))
        # An arm has too few samples for this number in some pair, so nothing is said of it.
        words = "too few samples" if ratio is None else "" if finding["differs"] else "not shown at 5 %"
        table.append([name, *medians, "–" if ratio is None else f"{ratio:.3f}",
                      "–" if low is None or high is None else f"{low:.3f} – {high:.3f}", words])
    yield ("table", ["", "Apache Kafka", "Ringtail", "ratio", "95 % interval", ""], table)
    yield ("p", f'{len(result["pairs"])} pairs, {result["dropped_for_steal"]} dropped for CPU steal. "Not shown" holds for all '
                "rows taken together; see cold/compare.html.")


def floors_section():
    if not os.path.exists(path("floors.json")):
        return
    floors = load_json("floors.json")
    line = lambda it: [duration(it["p50_us"] * 1e3), duration(it["p99_us"] * 1e3)]
    table = [
        ["O_DSYNC overwrite of 4 KiB", *line(floors["o_dsync_overwrite_4k"]), ""],
        ["O_DIRECT overwrite of 4 KiB, not flushed", *line(floors["o_direct_overwrite_4k"]), ""],
        ["sequential O_DIRECT write, 1 MiB × 4", "", "", f'{floors["sequential_o_direct_mb_per_s"]:,.0f} MB/s'],
        ["loopback echo of 100 bytes", *line(floors["loopback_echo_100b"]), ""],
        ["loopback sendmsg, 1 MiB a call", "", "", f'{floors["loopback_sendmsg_mb_per_s"]:,.0f} MB/s'],
    ]
    if os.path.exists(path("self-test.json")):
        case = load_json("self-test.json")["cases"][0]
        table.append(["the load generator against a broker that does nothing, 1,000 requests/s",
                      duration(case["p50_ns"]), duration(case["p99_ns"]), ""])
    yield ("h2", "What the machine allows, in the same run")
    yield ("table", ["", "p50", "p99", ""], table)


def document():
    yield ("h1", "Ringtail beside Apache Kafka")
    for text in machine_lines():
        yield ("p", text)
    for section in MODES:
        yield from mode_section(*section)
    yield ("p", "Latency counts from the moment at which a record was due; CPU is in seconds for 10^6 produced records; "
                "– is a percentile with fewer than 100 samples beyond it. Loads: "
                + "; ".join(f"*{name}*: {about}" for name, about in LOADS) + ".")
    yield from cold_section()
    yield from floors_section()


def is_text(name):
    """Whether a column of this name holds words, not figures."""
    return name in ("", "load", "broker")


def markdown(parts):
    lines = []
    for kind, *content in parts:
        if kind == "table":
            head, rows = content
            align = ["---" if is_text(name) else "--:" for name in head]
            lines.append("\n".join("| " + " | ".join(cells) + " |" for cells in [head, align, *rows]))
        else:
            lines.append({"h1": "# ", "h2": "## ", "p": ""}[kind] + content[0])
    return "\n\n".join(lines) + "\n"


def inline(text):
    """The little Markdown that is used above, as HTML."""
    text = html.escape(text)
    for mark, tag in (("**", "b"), ("`", "code"), ("*", "i")):
        pieces = text.split(mark)
        # An odd number of pieces: every mark has its partner.
        if len(pieces) % 2:
            text = "".join(piece if at % 2 == 0 else f"<{tag}>{piece}</{tag}>" for at, piece in enumerate(pieces))
    if text.startswith("[") and text.endswith(")"):
        name, target = text[1:-1].split("](")
        text = f'<a href="{target}">{name}</a>'
    return text


STYLE = """
:root{--bg:#fbfbf9;--fg:#1d2126;--dim:#636b74;--line:#dfe1dc;--card:#fff;--link:#0b6bcb}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e4e6e8;--dim:#98a1ab;--line:#2d3339;--card:#1b1f23;--link:#5cabff}}
body{margin:0 auto;max-width:1400px;padding:28px 20px 60px;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
a{color:var(--link)}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;background:var(--card)}
th,td{white-space:nowrap;padding:6px 10px;border-bottom:1px solid var(--line);text-align:right}th{color:var(--dim)}
.text{text-align:left}td.text:last-child{white-space:normal;min-width:180px}
"""


def page(parts):
    body = []
    for kind, *content in parts:
        if kind == "table":
            head, rows = content
            kinds = [' class="text"' if is_text(name) else "" for name in head]
            cells = lambda tag, row: "<tr>" + "".join(
                f"<{tag}{kind}>{inline(cell)}</{tag}>" for kind, cell in zip(kinds, row)) + "</tr>"
            body.append('<div class="wide"><table>' + cells("th", head) + "".join(cells("td", row) for row in rows)
                        + "</table></div>")
        else:
            body.append(f"<{kind}>{inline(content[0])}</{kind}>")
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><title>Ringtail beside Apache Kafka</title>'
            f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n")


parts = list(document())
for name, content in (("RESULTS.md", markdown(parts)), ("RESULTS.html", page(parts))):
    with open(path(name), "w") as file:
        file.write(content)
