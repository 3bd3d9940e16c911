"""Client packages, installed at pinned versions outside the checkout.

The cache directory is `$GYRE_CACHE`, by default `~/.cache/gyre/compat`. An installation is named after a
hash of its requirements, so a changed pin makes a new one and an unchanged pin costs nothing.
"""

import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INSTALL_SECONDS = 900


def cache():
    """The directory that keeps installations; made if missing."""
    default = os.path.join(os.path.expanduser("~"), ".cache", "gyre", "compat")
    path = os.environ.get("GYRE_CACHE") or default
    os.makedirs(path, exist_ok=True)
    return path


def python():
    """The interpreter of a virtual environment that holds `requirements.txt`."""
    requirements = os.path.join(HERE, "requirements.txt")
    home = _home("python", requirements, f"{sys.version_info.major}.{sys.version_info.minor}")
    interpreter = os.path.join(home, "bin", "python")

    def install():
        _run([sys.executable, "-m", "venv", home])
        _run([interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements])

    _once(home, install)
    return interpreter


def node_path():
    """A `node_modules` directory that holds `node/package.json`; for `NODE_PATH`."""
    manifest = os.path.join(HERE, "node", "package.json")
    home = _home("node", manifest)

    def install():
        os.makedirs(home, exist_ok=True)
        shutil.copy(manifest, home)
        _run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"], cwd=home)

    _once(home, install)
    return os.path.join(home, "node_modules")


def rust_runner():
    """The path of the built Rust runner; cargo decides whether anything is to be done."""
    target = os.path.join(cache(), "target")
    manifest = os.path.join(HERE, "rust", "Cargo.toml")
    environment = {**os.environ, "CARGO_TARGET_DIR": target}
    command = ["nice", "-n", "10", "cargo", "build", "-q", "--locked", "--manifest-path", manifest]
    _run(command, env=environment, cwd=os.path.join(HERE, "rust"))
    return os.path.join(target, "debug", "gyre-compat")


def _home(kind, requirements, salt=""):
    with open(requirements, "rb") as file:
        digest = hashlib.sha256(file.read() + salt.encode()).hexdigest()[:12]
    return os.path.join(cache(), f"{kind}-{digest}")


def _once(home, install):
    """Runs `install` unless it has completed before; a half-made installation is made anew."""
    stamp = os.path.join(home, ".complete")
    if os.path.exists(stamp):
        return
    shutil.rmtree(home, ignore_errors=True)
    install()
    with open(stamp, "w") as file:
        file.write("")


def _run(command, **options):
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INSTALL_SECONDS, **options
    )
    if done.returncode != 0:
        tail = done.stdout.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
