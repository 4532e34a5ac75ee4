"""Generate protos/src from protos/respan with the pinned grpcio-tools; `--check` only compares."""

from __future__ import annotations

import argparse
import filecmp
import os
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent
SOURCES = sorted((HERE / "respan" / "v1").glob("*.proto"))


def generate(out: Path) -> None:
    """Write messages, stubs and their types below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    include = resources.files("grpc_tools") / "_proto"
    flags = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    names = [str(source.relative_to(HERE)) for source in SOURCES]
    # protoc finds the mypy plug-ins beside the interpreter, also when no environment is active.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if protoc.main(["protoc", f"-I{HERE}", f"-I{include}", *flags, *names]) != 0:
        raise SystemExit("protoc failed; its message is above")


def differences(fresh: Path, committed: Path) -> list[str]:
    """Files that are missing from one side or not the same on both."""
    names = {
        path.relative_to(side)
        for side in (fresh, committed)
        for path in side.rglob("*_pb2*.py*")
        if "__pycache__" not in path.parts
    }
    return sorted(str(name) for name in names if not _same(fresh / name, committed / name))


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and filecmp.cmp(one, other, shallow=False)


def main() -> int:
    """Command line; exit code 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if not arguments.check:
        generate(arguments.out)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        changed = differences(Path(folder), arguments.out)
    for name in changed:
        print(f"{name} is not what the .proto files generate; run `make protos`")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
