#!/usr/bin/env bash
# Installs the system packages that building and testing Gyre needs, if any are missing.
set -euo pipefail

# command or file that must exist -> package that brings it
needs=(
  "clang:clang"
  "cmake:cmake"
  "make:make"
  "g++:g++"
  "python3:python3"
  "ip:iproute2"
  "redis-cli:redis-tools"
  "redis-server:redis-server"
)
missing=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
# bindgen loads libclang at build time.
compgen -G "/usr/lib/llvm-*/lib/libclang*.so*" >/dev/null || missing+=("libclang-dev")
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=("python3-venv")

if [ ${#missing[@]} -gt 0 ]; then
  echo "installing: ${missing[*]}"
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq
  # redis-server is only a reference here: it must not be started as a service.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or later (rustup.rs)" >&2; exit 1; }
