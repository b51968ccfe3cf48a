"""Lifetimes: after which step a tensor of the card is read no more."""

from backends.tenstorrent.emission.movement import VIEWS
from backends.tenstorrent.program import CardStep, Program


def lifetimes(program: Program) -> dict[int, list[str]]:
    """Index of a step -> names of what is deallocated after it, in the order in which it was made.

    A result that may be a view of its input lives and dies with it. Constants, state, the values that state is to be
    and inputs that stay on the card until they change are not among them.
    """
    root: dict[str, str] = {}
    staying = set(program.states)
    last: dict[str, int] = {}
    for index, step in enumerate(program.steps):
        for name in step.inputs:
            if name in root:
                last[root[name]] = index
        if isinstance(step, CardStep) and step.result.place == "card" and step.op != "copy":
            name = step.result.name
            of_staying = step.op in VIEWS and not staying.isdisjoint(step.inputs)
            joined = step.op == "concat" and len(step.inputs) > 1
            if step.options.get("kept") or (of_staying and not joined):
                staying.add(name)
                continue  # it may be what stays, under another name
            # What is joined to something that stays has memory of its own.
            views = step.op in VIEWS and not of_staying
            shared = [root[one] for one in step.inputs if one in root] if views else []
            root[name] = shared[0] if shared else name
            # Of several tensors joined, each may be the one that the result is a view of.
            for other in shared[1:]:
                root |= {member: shared[0] for member, held in root.items() if held == other}
            last[root[name]] = index
    kept = {root.get(state.update) for state in program.states.values()}
    dead: dict[int, list[str]] = {}
    for name, held in root.items():
        if held not in kept:
            dead.setdefault(last[held], []).append(name)
    return dead
