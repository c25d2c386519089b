#!/usr/bin/env bash
# Every model that onnx_export_test makes passes the public checker and its strict shape inference:
#   export_checker_test.sh ONNX_EXPORT_TEST
# 77: the public package (python3-onnx) is not here.
set -euo pipefail
python=/usr/bin/python3
if ! "$python" -c 'import onnx' 2>/dev/null; then
  echo "export_checker_test: python3-onnx is not installed, skipped"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
LEPTON_EXPORT_DIR=$folder "$1" >"$folder/log" || { tail -20 "$folder/log"; exit 1; }
"$python" - "$folder" <<'PY'
import pathlib, sys
import onnx
files = sorted(pathlib.Path(sys.argv[1]).glob("*.onnx"))
assert len(files) > 60, f"only {len(files)} models"
for file in files:
    try:
        onnx.checker.check_model(str(file), full_check=True)
        model = onnx.load(str(file))
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True,
                                                     data_prop=True)
        # What inference finds out agrees with what the model declares.
        assert len(inferred.graph.output) == len(model.graph.output)
    except Exception as error:
        sys.exit(f"{file.name}: {error}")
for name in ("block_mask.onnx", "block_causal.onnx"):
    model = onnx.load(str(pathlib.Path(sys.argv[1]) / name))
    dims = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", "sequence"], dims
print(f"{len(files)} models pass the public checker {onnx.__version__}")
PY
