#!/bin/bash
# Builds the stand-in for CUDA (README.md).
#   build.sh FOLDER PYTHON    FOLDER takes 350 MB and lies outside the checkout; PYTHON has pip; gcc 12 or later
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1/lib" "$1/objects"
out=$(cd "$1" && pwd)
python=$2

install() { # PACKAGE FOLDER
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$2" "$1"
}
[ -d "$out/gpu/onnxruntime" ] || install onnxruntime-gpu==1.31.1 "$out/gpu"
[ -d "$out/headers/nvidia" ] || install 'nvidia-cuda-runtime>=13' "$out/headers"
# CUDA's declarations, the layout of cudaDeviceProp among them, come from the installed headers.
include=$(dirname "$(find "$out/headers/" -name driver_types.h | head -n 1)")

# The functions have the arguments that CUDA gives them, used or not.
flags=(-Wall -Wextra -Wno-unused-parameter -fPIC "-I$here/runtime" "-isystem$include")
compile() { # NAME FLAGS...
    gcc "${flags[@]}" "${@:2}" -c "$here/runtime/$1.c" -o "$out/objects/$1.o"
}
link() { # LIBRARY NAMES... ; the provider wants versioned symbols of those that have a map
    local arguments=("-Wl,-soname,$1") map="$here/runtime/${1%%.*}.map"
    for name in "${@:2}"; do arguments+=("$out/objects/$name.o"); done
    [ ! -f "$map" ] || arguments+=("-Wl,--version-script=$map")
    # The settings and counters live in the first library; the others read them there.
    [ "$1" = libcudart.so.13 ] || arguments+=("-L$out/lib" -l:libcudart.so.13 '-Wl,-rpath,$ORIGIN')
    gcc -shared "${arguments[@]}" -lpthread -lm -o "$out/lib/$1"
}

runtime=(state errors device memory streams launch)
computing=(kernels elementwise normalization movement attention unfused_attention product)
for name in "${runtime[@]}" cublas cublaslt curand cuda; do compile "$name" -O2; done
for name in "${computing[@]}"; do compile "$name" -O3 -march=native; done # it runs where it is built
link libcudart.so.13 "${runtime[@]}" "${computing[@]}"
link libcublas.so.13 cublas
link libcublasLt.so.13 cublaslt
link libcurand.so.10 curand
link libcuda.so.1 cuda
echo "built in $out; to check it: ALBERT_SERVE_STANDIN_CUDA=$out $python -m tests.cuda.check_standin"
