#!/usr/bin/env python3
"""Fails on a test or bench source that no CMakeLists.txt beside it (or above it) names."""
import pathlib
import sys


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    missing = []
    for top, patterns in {"tests": ("*_test.cc", "*_test.sh", "*_test.py"),
                          "bench": ("*_bench.cc",)}.items():
        for pattern in patterns:
            for file in sorted((root / top).rglob(pattern)):
                folder, named = file.parent, False
                while folder != root and not named:
                    lists = folder / "CMakeLists.txt"
                    named = lists.exists() and file.name in lists.read_text()
                    folder = folder.parent
                if not named:
                    missing.append(file.relative_to(root).as_posix())
    print("\n".join(f"{name}: in no CMakeLists.txt" for name in missing) or "tests: all registered")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
