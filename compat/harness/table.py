"""The results as text: one table of the shared cases, one for each client with cases of its own."""

from harness import matrix

PASSED, FAILED, NONE = "✓", "✗", "–"


def render(clients, results):
    """The tables; a cell is ✓ only if the case passed with every entry."""
    shared = [case for case in matrix.COMMON + matrix.PLAIN_ONLY if any(r["case"] == case for r in results)]
    parts = []
    if shared:
        rows = [client for client in clients if set(client.cases) & set(shared)]
        parts.append(_grid(rows, shared, results))
    for client in clients:
        own = [case for case in client.own_cases if any(r["case"] == case for r in results)]
        if own:
            parts.append(_grid([client], own, results))
    return "\n".join(parts)


def _grid(clients, cases, results):
    width = max(len(client.name) for client in clients) + 2
    lines = [" " * width + "".join(f"{case}  " for case in cases)]
    for client in clients:
        cells = (_cell(client.name, case, results).center(len(case)) + "  " for case in cases)
        lines.append(f"{client.name:{width}}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cell(client, case, results):
    found = [r["ok"] for r in results if r["client"] == client and r["case"] == case]
    if not found:
        return NONE
    return PASSED if all(found) else FAILED


def failures(results):
    """Each failure with its entry and reason; equal reasons of one case are told once."""
    told = {}
    for result in results:
        if not result["ok"]:
            reason = (result["client"], result["case"], result["detail"].strip())
            told.setdefault(reason, []).append(result["entry"])
    return "".join(
        f"{FAILED} {client} {case} [{' '.join(entries)}]\n    {detail}\n"
        for (client, case, detail), entries in told.items()
    )
