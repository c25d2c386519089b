#!/usr/bin/env python3
"""Fails when a file includes what its layer may not see (docs/architecture.md, "Dependencies").

Each rule: a folder, and the folders that it may include besides itself. The longest match counts.
"""
import pathlib
import re
import sys

BASE = ["runtime/base"]
TENSOR = BASE + ["runtime/tensor"]
GRAPH = TENSOR + ["runtime/graph"]
OPS = GRAPH + ["runtime/ops"]
MAY_INCLUDE = {
    "runtime/base": [],
    "runtime/spec": BASE,
    "runtime/wire": BASE,
    "runtime/http": BASE,
    "runtime/formats/safetensors": BASE,
    "runtime/formats/tokenizer": BASE,
    "runtime/formats/huggingface": BASE + ["runtime/spec", "runtime/formats/safetensors"],
    "runtime/formats/image": BASE,
    "runtime/formats/onnx": OPS + ["runtime/kernels"],
    "runtime/tensor": BASE,
    "runtime/graph": TENSOR,
    "runtime/ops": GRAPH,
    "runtime/kernels": OPS,
    "runtime/nn": OPS + ["runtime/kernels", "runtime/spec", "runtime/formats/onnx"],
    "collectives": BASE,
    "storage": BASE + ["runtime/formats/safetensors", "runtime/formats/image"],
    "scheduler": BASE + ["runtime/spec", "runtime/wire", "runtime/http", "runtime/formats/tokenizer",
                         "storage"],
    "worker": ["runtime", "collectives", "storage"],
    # The command line speaks HTTP; it shares the CSV reader. Only the verbs that start processes
    # of their own see the scheduler and the worker.
    "cli": BASE + ["runtime/spec", "runtime/http", "storage/datasets"],
    "tests": ["runtime", "collectives", "storage", "scheduler", "worker", "cli"],
    "bench": ["runtime", "collectives", "storage", "scheduler", "worker"],
}
STARTS_PROCESSES = {"coordinator_command", "worker_command", "run_command", "key_command", "local_agents",
                    "task_command", "doctor_command", "launch", "model_tools"}
VENDOR = re.compile(r"<(cuda\w*|cudnn\w*|cublas\w*|nccl|mpi)\.h>")
INCLUDE = re.compile(r'^\s*#include\s+(?:"([^"]+)"|(<[^>]+>))', re.MULTILINE)


def layer_of(path: str) -> str | None:
    matches = [layer for layer in MAY_INCLUDE if path == layer or path.startswith(layer + "/")]
    return max(matches, key=len) if matches else None


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    errors = []
    for top in sorted({layer.split("/")[0] for layer in MAY_INCLUDE}):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in {".h", ".cc", ".cu", ".cuh"}:
                continue
            name = file.relative_to(root).as_posix()
            layer = layer_of(name)
            for quoted, angled in INCLUDE.findall(file.read_text()):
                if angled:
                    backend = re.search(r"(_cuda|_backend|cuda|nccl|mpi)\w*\.(cc|cu|cuh)$", name) or \
                        (name.startswith("runtime/kernels/cuda/") and file.suffix != ".h") or \
                        name == "collectives/backends/nccl_library.h"  # what the nccl back-end's sources share
                    if VENDOR.search(angled) and not backend and top != "bench" and top != "tests":
                        errors.append(f"{name}: {angled} belongs in a back-end's source only")
                    continue
                target = layer_of(quoted)
                if target is None or layer is None or target == layer:
                    continue
                allowed = list(MAY_INCLUDE[layer])
                if layer == "cli" and file.stem in STARTS_PROCESSES:
                    allowed += ["scheduler", "worker", "runtime/wire", "runtime/kernels", "collectives"]
                if not any(target == a or target.startswith(a + "/") for a in allowed) and \
                        not any(quoted.startswith(a + "/") for a in allowed):
                    errors.append(f"{name}: must not include {quoted} ({layer} -> {target})")
    print("\n".join(errors) if errors else "layers: clean")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
