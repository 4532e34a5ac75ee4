"""Check your own manifests: `deploy/kustomize.sh FOLDER | python -m deploy.k8s.checks [VERSION]`.

Needs the packages of locks/manifests.txt. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import sys

from deploy.k8s.checks import faults
from deploy.k8s.checks.objects import Manifests, loaded
from deploy.k8s.checks.schemas import schemas

NEWEST = "1.37"


def main() -> None:
    """Print what is wrong, one line each."""
    objects = loaded(sys.stdin.read())
    version = sys.argv[1] if len(sys.argv) > 1 else NEWEST
    found = [*schemas(Manifests(objects), version), *faults(objects)]
    print("\n".join(found) or f"{len(objects)} objects, nothing wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
