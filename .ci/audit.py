"""Known holes in the locked packages of every container: a report that never fails, soon over.

`python .ci/audit.py PIP_AUDIT [LOCK...]`
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

_LIMIT_S = 50.0
_LOCKS = ("orchestrator", "restoration", "segmentation", "quantification", "training")
_OPTIONS = ("--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off", "--timeout=5")


def main(program: str, *locks: str) -> None:
    """Ask about each lock as long as there is time, and print what was found."""
    end = time.monotonic() + _LIMIT_S
    folder = Path(__file__).parents[1] / "locks"
    holes: set[str] = set()
    for lock in locks or [str(folder / f"{name}.txt") for name in _LOCKS]:
        name = Path(lock).name
        try:
            packages = _ask(program, lock, end - time.monotonic())
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            print(f"{name}: not audited, the advisories cannot be asked ({_reason(error)})")
            break
        known = [one for one in packages if "vulns" in one]
        print(f"{name}: {len(known)} of {len(packages)} packages audited")
        holes |= {_hole(one, hole) for one in known for hole in one["vulns"]}
    print("\n".join([*sorted(holes), f"{len(holes)} known holes in what was audited"]))


def _ask(program: str, lock: str, time_s: float) -> list[dict]:
    done = subprocess.run(
        [program, "--requirement", lock, *_OPTIONS],
        capture_output=True,
        text=True,
        timeout=max(time_s, 0.1),
    )
    if not done.stdout.strip():
        raise ValueError(done.stderr.strip() or "no answer")
    packages = json.loads(done.stdout)["dependencies"]
    if not any("vulns" in one for one in packages):
        raise ValueError("the index has no advisories for any of them")
    return packages


def _hole(package: dict, hole: dict) -> str:
    fixed = ", ".join(hole["fix_versions"]) or "no version yet"
    return f"{package['name']} {package['version']}: {hole['id']}, repaired in {fixed}"


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return "no answer in time"
    return str(error).strip().splitlines()[-1][:200]


if __name__ == "__main__":
    main(*sys.argv[1:])
