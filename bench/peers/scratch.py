"""A scratch environment for peers that are not in Debian: made once, in the folder for temporary files."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

INSTALL_S = 600


def python_with(*packages):
    """(its interpreter, "") with the packages installed from PyPI, or (None, why not) where that cannot be."""
    name = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"homerank-bench-{name}"
    interpreter, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return interpreter, ""
    print(f"bench: installing {', '.join(packages)} into {folder}", file=sys.stderr)
    for command in (["/usr/bin/python3", "-m", "venv", "--clear", folder],
                    [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]):
        try:
            ran = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 check=False, timeout=INSTALL_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return None, f"{command[0]}: {error}"
        if ran.returncode != 0:
            last = [line for line in ran.stdout.splitlines() if line.strip()]
            return None, last[-1].strip() if last else f"{command[2]} failed"
    done.touch()
    return interpreter, ""
