"""The names and labels of PromQL expressions, as far as this project writes them."""

import re
from pathlib import Path

# Beside the proxy's own metrics: what Prometheus makes, and what it adds to everything that it scrapes.
FOREIGN = {"up": set()}
ADDED = {"instance", "job"}
OF_HISTOGRAMS = {"le"}
WORDS = {
    "and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool",
    "sum", "min", "max", "avg", "count", "rate", "increase", "changes", "histogram_quantile", "clamp_min", "vector", "time",
}


def table(names_rs):
    """Every metric with its labels, as a scrape shows it, from the program's own file of names."""
    text = Path(names_rs).read_text()
    entry = re.compile(r'[A-Z_]+ = (Counter|Gauge|Histogram|Info) "([a-z_]+)" \[([^\]]*)\]')
    found = {}
    for kind, name, labels in entry.findall(text):
        labels = set(re.findall(r'"([a-z_]+)"', labels))
        full = f"tdsbouncer_{name}"
        if kind == "Counter":
            found[f"{full}_total"] = labels
        elif kind == "Info":
            found[f"{full}_info"] = labels
        elif kind == "Gauge":
            found[full] = labels
        else:
            found[f"{full}_bucket"] = labels | OF_HISTOGRAMS
            found[f"{full}_sum"] = found[f"{full}_count"] = labels
    if len(found) < 20:
        raise ValueError(f"{names_rs} was not understood: {len(found)} names")
    return found


def problems(expression, known):
    """What is wrong with an expression's names and labels; empty if nothing is."""
    known = {**known, **FOREIGN}
    wrong, labels_allowed = [], set(ADDED)
    bare = re.sub(r'"[^"]*"', '""', expression)
    for name, matchers in re.findall(r"\b([a-z_][a-z0-9_]*)\s*(?:\{([^}]*)\})?", re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", " ", re.sub(r"\[[^\]]*\]", "", bare))):
        if name in WORDS or name in known or f"{name}=" in matchers:
            pass
        elif not matchers and re.search(rf"[{{,]\s*{name}\s*(=|!)", bare):
            continue
        else:
            wrong.append(f"there is no metric {name}")
            continue
        labels_allowed |= known.get(name, set())
        for label in re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers):
            if name in known and label not in known[name] | ADDED:
                wrong.append(f"{name} has no label {label}")
    for group in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", bare):
        for label in filter(None, (part.strip() for part in group.split(","))):
            if label not in labels_allowed:
                wrong.append(f"no metric here has the label {label}")
    return wrong


def without_comparison(expression):
    """What an alert looks at, without the number that it compares it with."""
    cut = re.fullmatch(r"(.*\S)\s*(?:==|!=|>=|<=|>|<)\s*-?[0-9.]+", expression.strip(), re.S)
    if not cut:
        raise ValueError(f"the alert does not end in a comparison with a number: {expression}")
    return cut[1]
