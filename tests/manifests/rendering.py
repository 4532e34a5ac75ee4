"""What kustomize makes of the overlays."""

import copy
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from deploy.k8s.checks.objects import Manifests, Workload, loaded

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """Objects that a folder renders to."""
    done = subprocess.run(
        [ROOT / "deploy" / "kustomize.sh", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return loaded(done.stdout)


@cache
def _rendered(overlay: str) -> list[dict[str, Any]]:
    return kustomized(K8S / "overlays" / overlay)


def rendered(overlay: str) -> Manifests:
    """An overlay's objects, the caller's own to change."""
    return Manifests(copy.deepcopy(_rendered(overlay)))


def workload(manifests: Manifests, name: str) -> Workload:
    """The workload of that name."""
    (found,) = [one for one in manifests.workloads if one.object["metadata"]["name"] == name]
    return found
