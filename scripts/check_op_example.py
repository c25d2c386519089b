#!/usr/bin/env python3
"""The example of runtime/ops/README.md, `sigmoid`, is what the code has.

Fails on a file of its tables that is not there or does not name the op, on code that it quotes and
that is in none of the row's files, and on a file of runtime/ that names the op and is in no row.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "runtime/ops/README.md"
# Name it for another reason: ops and operators that are made of it, and functions of general types.
OTHERS = {
    "runtime/formats/onnx/patterns.cc", "runtime/formats/onnx/rules_activation.cc",
    "runtime/formats/onnx/rules_recurrent.cc", "runtime/kernels/cpu/simd/make_piecewise.py",
    "runtime/kernels/general/elementwise.cc", "runtime/nn/model_builder.h", "runtime/ops/gelu.h",
    "runtime/ops/general/unary_math.cc", "runtime/ops/general/unary_math.h", "runtime/ops/silu.h",
    "runtime/spec/model_spec.h",
}
SOURCES = {".cc", ".cu", ".cuh", ".h", ".py", ".txt"}


def rows(text):
    """Of the example's tables: the names of files, and the pieces of code."""
    for line in text.split("## The same on an example", 1)[1].splitlines():
        cells = line.strip().strip("|").split("|", 1)
        names = re.findall(r"`([^`]+)`", cells[0])
        if line.startswith("| `") and len(cells) == 2:
            yield names, re.findall(r"`([^`]+)`", cells[1])


def find(name, before):
    """A name alone lies beside the one before it, or above."""
    if "/" in name or before is None:
        return ROOT / name
    for folder in before.parents:
        if (folder / name).exists():
            return folder / name
    return ROOT / name


def main() -> int:
    wrong, listed = [], set()
    plain = lambda text: re.sub(r"\s+", "", text)
    for names, quotes in rows(README.read_text()):
        files, before = [], None
        for name in names:
            before = find(name, before)
            files.append(before)
            listed.add(before.relative_to(ROOT).as_posix())
            if not before.exists():
                wrong.append(f"{name} is not there")
            elif "sigmoid" not in before.read_text().lower():
                wrong.append(f"{name} does not name sigmoid")
        text = plain("".join(file.read_text() for file in files if file.exists()))
        for quote in quotes:
            if (ROOT / quote).exists():
                continue
            wanted = quote.rsplit("::", 1)[1] if re.fullmatch(r"\w+::\w+", quote) else quote
            if plain(wanted) not in text:
                wrong.append(f"{', '.join(names)}: no `{quote}`")
    for file in sorted((ROOT / "runtime").rglob("*")):
        name = file.relative_to(ROOT).as_posix()
        if file.suffix in SOURCES and name not in listed | OTHERS and "sigmoid" in file.read_text().lower():
            wrong.append(f"{name} names sigmoid, and is in no row")
    for line in wrong:
        print(f"runtime/ops/README.md: {line}")
    if len(listed) < 15:
        wrong.append("")
        print("runtime/ops/README.md: the tables of the example were not found")
    if not wrong:
        print(f"runtime/ops/README.md: {len(listed)} files, all as the example says")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
