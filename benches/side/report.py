"""Medians, ratios, the table, and the picture."""

from html import escape
from statistics import median

FIELDS = ("rps", "p50_ms", "p99_ms", "cpu_seconds_per_million", "context_switches_per_million")
COLOURS = ("#8a8f98", "#2f6fb3", "#d9822b", "#5a9e6f", "#9a5fb4")


def summarise(rounds, systems, cases):
    """Rounds to one entry per case and system: medians, and the ratio of throughput to Redis."""
    summary = []
    for test, pipeline in cases:
        reference = None
        for system in systems:
            runs = [r for r in rounds if (r["system"], r["test"], r["pipeline"]) == (system, test, pipeline)]
            entry = {"system": system, "test": test, "pipeline": pipeline, "rounds": len(runs)}
            entry |= {field: median(run[field] for run in runs) for field in FIELDS}
            entry |= {"rps_min": min(r["rps"] for r in runs), "rps_max": max(r["rps"] for r in runs)}
            if system == "redis":
                reference = entry["rps"]
            entry["ratio"] = entry["rps"] / reference if reference else None
            summary.append(entry)
    return summary


def table(summary, titles, peaks):
    """The summary for people."""
    head = ["test", "P", "system", "op/s", "min–max", "ratio", "p50 ms", "p99 ms", "CPU s/M", "switches/M"]
    rows = [head]
    for entry in summary:
        ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        rows.append([
            entry["test"].upper(), str(entry["pipeline"]), titles[entry["system"]], f"{entry['rps']:,.0f}",
            f"{entry['rps_min']:,.0f}–{entry['rps_max']:,.0f}", ratio, f"{entry['p50_ms']:.3f}",
            f"{entry['p99_ms']:.3f}", f"{entry['cpu_seconds_per_million']:.1f}",
            f"{entry['context_switches_per_million']:,.0f}",
        ])  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    left = {0, 2}
    lines = [
        "  ".join(cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines.append("")
    lines += [f"peak memory  {titles[name]}: {peak / 2**20:,.0f} MiB" for name, peak in peaks.items()]
    return "\n".join(line.rstrip() for line in lines)


def chart(summary, titles, subtitle):
    """Throughput by case and system as an SVG, with the ratio to Redis on each bar."""
    cases = list(dict.fromkeys((entry["test"], entry["pipeline"]) for entry in summary))
    systems = list(dict.fromkeys(entry["system"] for entry in summary))
    panels = list(dict.fromkeys(pipeline for _, pipeline in cases))
    bar, gap, left, height, panel_height = 34, 26, 80, 200, 280
    group = bar * len(systems) + gap
    tests = list(dict.fromkeys(test for test, _ in cases))
    width = max(left + group * len(tests) + 20, 560)
    top = 64 + 18 * len(systems)
    parts = [text(12, 24, "redis-benchmark: operations a second", 15, "bold"), text(12, 42, subtitle, 11)]
    for index, system in enumerate(systems):
        y = 58 + 18 * index
        parts.append(f'<rect x="12" y="{y}" width="12" height="12" fill="{COLOURS[index % len(COLOURS)]}"/>')
        parts.append(text(30, y + 10, titles[system], 12))
    for number, pipeline in enumerate(panels):
        base = top + panel_height * number + height + 40
        entries = [entry for entry in summary if entry["pipeline"] == pipeline]
        highest = max(entry["rps"] for entry in entries)
        parts.append(text(12, base - height - 14, f"P={pipeline}", 13, "bold"))
        for step in range(5):
            y = base - height * step / 4
            parts.append(f'<path d="M{left - 6} {y:.1f}H{width - 14}" stroke="#ddd"/>')
            parts.append(text(left - 10, y + 4, f"{highest * step / 4 / 1000:.0f} k", 11, anchor="end"))
        for entry in entries:
            place, index = tests.index(entry["test"]), systems.index(entry["system"])
            tall = height * entry["rps"] / highest
            x = left + group * place + bar * index
            colour = COLOURS[index % len(COLOURS)]
            box = f'x="{x}" y="{base - tall:.1f}" width="{bar - 4}" height="{tall:.1f}"'
            parts.append(f'<rect {box} fill="{colour}"/>')
            if entry["ratio"] is not None and entry["system"] != "redis":
                parts.append(text(x + bar / 2 - 2, base - tall - 4, f"{entry['ratio']:.2f}", 11, anchor="middle"))
        for place, test in enumerate(tests):
            parts.append(text(left + group * place, base + 16, test.upper(), 12))
    tall = top + panel_height * len(panels) + 10
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{tall}" font-family="sans-serif">'
    return "\n".join([frame, f'<rect width="{width}" height="{tall}" fill="white"/>', *parts, "</svg>", ""])


def text(x, y, words, size, weight="normal", anchor="start"):
    """One line of text in an SVG."""
    look = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(words)}</text>'
