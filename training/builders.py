"""The published architectures as `network` sections of config.json (MODEL.md 2).

groups is {group name: [task names]}. All return a network without its tasks' towers beyond `tower`.
"""


def _tasks(groups, source, tower):
    return [
        {"name": task, "input": source(group, task), "tower": list(tower), "output": "sigmoid"}
        for group, tasks in groups.items()
        for task in tasks
    ]


def _frame(layers, tasks, activation, norm):
    return {"activation": activation, "norm": norm, "layers": layers, "tasks": tasks}


def home(groups, width, meta_hidden=(128, 64), task_hidden=(64,), experts=2, tower=(32,), loras=2, rank=None,
         activation="swish", norm="batch", feature_gate=True, self_gate=True):
    """HoME: meta experts shared and per group, then experts shared, per group and per task."""
    gate = {"feature_gate": {"loras": loras, "rank": rank or width // loras}} if feature_gate else {}

    def meta(name, mix):
        return {"name": name, "input": ["features"], "experts": experts, "hidden": list(meta_hidden), **gate,
                "mix": mix, "self_gate": self_gate}

    def lender(name):
        return {"name": name, "input": [f"meta.{name}"], "experts": 1, "hidden": list(task_hidden)}

    metas = [meta("shared", ["shared", *groups])] + [meta(g, ["shared", g]) for g in groups]
    units = [lender("shared")] + [lender(g) for g in groups]
    for group, tasks in groups.items():
        for task in tasks:
            units.append({"name": task, "input": [f"meta.{group}"], "experts": 1, "hidden": list(task_hidden),
                          "gate_input": [f"meta.{group}", "meta.shared"], "mix": ["shared", group, task],
                          "self_gate": self_gate})
    layers = [{"name": "meta", "units": metas}, {"name": "task", "units": units}]
    return _frame(layers, _tasks(groups, lambda g, t: f"task.{t}", tower), activation, norm)


def ple(groups, width, hidden=((128, 64), (64,)), shared=2, own=1, tower=(32,), activation="relu", norm="none",
        self_gate=False):
    """PLE: `hidden` lists the extraction layers; each has shared experts and every task's own (CGC units)."""
    del width
    tasks = [task for names in groups.values() for task in names]
    layers = []
    for depth, widths in enumerate(hidden):
        last = depth == len(hidden) - 1
        before = f"extract{depth - 1}." if depth else None

        def unit(name, experts, mix, widths=widths, before=before):
            made = {"name": name, "input": [before + name if before else "features"], "experts": experts,
                    "hidden": list(widths)}
            return {**made, "mix": mix, "self_gate": self_gate} if mix else made

        units = [unit("shared", shared, None if last else ["shared", *tasks])]
        units += [unit(task, own, ["shared", task]) for task in tasks]
        layers.append({"name": f"extract{depth}", "units": units})
    return _frame(layers, _tasks(groups, lambda g, t: f"extract{len(hidden) - 1}.{t}", tower), activation, norm)


def cgc(groups, width, hidden=(128, 64), shared=3, own=1, tower=(32,), activation="relu", norm="none"):
    """CGC: PLE of one extraction layer."""
    return ple(groups, width, (hidden,), shared, own, tower, activation, norm)


def mmoe(groups, width, hidden=(128, 64), experts=8, tower=(32,), activation="relu", norm="none"):
    """MMoE: shared experts, one gate a task."""
    del width
    units = [{"name": "shared", "input": ["features"], "experts": experts, "hidden": list(hidden)}]
    units += [{"name": task, "input": ["features"], "experts": 0, "mix": ["shared"]}
              for tasks in groups.values() for task in tasks]
    return _frame([{"name": "experts", "units": units}], _tasks(groups, lambda g, t: f"experts.{t}", tower),
                  activation, norm)


def shared_bottom(groups, width, hidden=(256, 128), tower=(64,), activation="relu", norm="none"):
    """Shared bottom: one expert that all towers read."""
    del width
    unit = {"name": "shared", "input": ["features"], "experts": 1, "hidden": list(hidden), "mix": ["shared"]}
    return _frame([{"name": "bottom", "units": [unit]}], _tasks(groups, lambda g, t: "bottom.shared", tower),
                  activation, norm)


def flat_home(groups, width, **options):
    """HoME without its hierarchy: one meta unit for all, and task gates that see every group's experts."""
    network = home(groups, width, **options)
    meta, task = network["layers"]
    for unit in meta["units"]:
        unit["mix"] = ["shared", *groups]
    for unit in task["units"]:
        if "mix" in unit:
            unit["mix"] = ["shared", *groups, unit["name"]]
    return network


KINDS = {
    "home": home,
    "home-relu-nonorm": lambda g, w: home(g, w, activation="relu", norm="none"),
    "home-flat": flat_home,
    "home-no-feature-gate": lambda g, w: home(g, w, feature_gate=False),
    "home-no-self-gate": lambda g, w: home(g, w, self_gate=False),
    "ple": ple,
    "cgc": cgc,
    "cgc-swish-norm": lambda g, w: cgc(g, w, activation="swish", norm="batch"),
    "mmoe": mmoe,
    "mmoe-swish-norm": lambda g, w: mmoe(g, w, activation="swish", norm="batch"),
    "shared-bottom": shared_bottom,
}
