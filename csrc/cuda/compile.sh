#!/bin/sh
# Runs nvcc with the arguments given. Keeps the report of ptxas and the PTX in FILE.kept beside the output FILE (-o), for
# python_tests/ops/test_cuda_compile.py, and prints what else the compiler says.
for argument; do
  if [ "$before" = -o ]; then kept=$argument.kept; fi
  before=$argument
done
rm -rf "$kept"
mkdir -p "$kept"
if ! "$@" -Xptxas=-v --keep --keep-dir="$kept" >"$kept/report" 2>&1; then
  cat "$kept/report" >&2
  exit 1
fi
find "$kept" -type f ! -name '*.ptx' ! -name report -exec rm {} +
grep -Ev '^ptxas info|^ +[0-9]+ bytes' "$kept/report" >&2 || true
mv "$kept/report" "$kept/report.txt"
