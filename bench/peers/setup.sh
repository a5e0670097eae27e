#!/usr/bin/env bash
# Installs the peers on Debian 12: bench/peers/setup.sh [FOLDER]
# Needs root (or sudo) for the Debian packages; the npm packages go to FOLDER (default: where the benchmark looks).
set -euo pipefail
folder=${1:-${ISOPOLICY_PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/isopolicy-peers}}

sudo=()
if [ "$(id -u)" -ne 0 ]; then sudo=(sudo); fi
"${sudo[@]}" apt-get install -y --no-install-recommends g++ \
  libdnnl-dev libopenblas0-pthread libopenblas0-openmp libblis4-openmp libxsmm-dev python3-torch python3-numpy

# Without install scripts: one would download a whole llama.cpp, the other GPU libraries.
mkdir -p "$folder"
cd "$folder"
[ -f package.json ] || echo '{"private": true}' > package.json
npm install --ignore-scripts --omit=optional @node-llama-cpp/linux-x64@3.22.1
npm install --ignore-scripts onnxruntime-node@1.30.0
echo "peers from npm are in $folder"
