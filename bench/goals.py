"""What a figure should be, a line each: `goal: GPT step, f32: 1.62, at least 1.5: met`, or MISSED.

`scripts/bench.sh --check` fails where a bench printed a goal that was missed. Figures of a machine that has
something else to do miss goals, and so do machines without what a goal counts on (AMX: README.md)."""


def _say(what, value, bound, goal, met):
    print(f"goal: {what}: {value:.4g}, {bound} {goal:g}: {'met' if met else 'MISSED'}", flush=True)
    return met


def at_least(what, value, goal):
    return _say(what, value, "at least", goal, value >= goal)


def at_most(what, value, goal):
    return _say(what, value, "at most", goal, value <= goal)
