"""Start stage services as child processes when nobody else runs them, and stop them again."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from respan_orchestrator.addresses import Replica, replicas_at
from respan_orchestrator.clients import Request, StageUnavailableError
from respan_orchestrator.replicas import Replicas
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.stack import state_folder

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 15.0


class ServicePool:
    """Addresses of the services; those without one in the settings are started on first use.

    Parameters
    ----------
    settings
        Addresses of services that run already.
    data_roots
        Folders that started services may open.
    device
        auto, cpu or cuda, for started services.
    log_folder
        Where started services write their logs; absent: a temporary folder.
    """

    def __init__(
        self,
        settings: OrchestratorSettings,
        data_roots: Sequence[Path],
        device: str = "auto",
        log_folder: Path | None = None,
    ) -> None:
        self.settings = settings
        self._data_roots = [path.resolve() for path in data_roots]
        self._device = device
        self._scratch = tempfile.TemporaryDirectory(prefix="respan-")
        self._log_folder = log_folder or Path(self._scratch.name)
        self._children: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._starting = threading.Lock()
        self._replicas = Replicas(settings)
        self._images = 0

    def __enter__(self) -> ServicePool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def address(self, service: str) -> str:
        """Where a service answers or soon will: host:port, or a list of its replicas.

        A child that died is started anew.
        """
        fixed = self.settings.address_of(service)
        if fixed:
            return fixed
        with self._starting:
            child, port = self._children.get(service, (None, 0))
            if child is None or child.poll() is not None:
                child, port = self._start(service)
                self._children[service] = (child, port)
        return f"127.0.0.1:{port}"

    @contextmanager
    def least_busy(self, service: str) -> Iterator[Replica]:
        """Replica with the least to do; it counts as busy while the block goes on."""
        with self._replicas.least_busy(service, lambda: self.address(service)) as replica:
            yield replica

    @contextmanager
    def working_on_image(self) -> Iterator[None]:
        """Say that an image needs a replica of its own while the block goes on."""
        with self._starting:
            self._images += 1
        try:
            yield
        finally:
            with self._starting:
                self._images -= 1

    def shares(self, request: Request) -> bool:
        """Whether a request is large enough to be shared, and there may be somebody to help."""
        least = self.settings.share_from_voxels
        return (
            0 < least <= request.shareable_voxels and len(self._known_replicas(request.service)) > 1
        )

    def take_helper(
        self, service: str, working: int, besides: Collection[Replica]
    ) -> Replica | None:
        """Another replica for an image, to be given back; none where other images need it.

        Parameters
        ----------
        working
            Replicas that work on the image already.
        besides
            Those that are not asked again.
        """
        others = max(self._images, 1) - 1
        if working + others >= len(self._known_replicas(service)):
            return None
        return self._replicas.take_idle(service, self.address(service), besides)

    def give_back(self, helper: Replica) -> None:
        """Say that a helper is done."""
        self._replicas.give_back(helper)

    def _known_replicas(self, service: str) -> list[Replica]:
        return replicas_at(self.settings.address_of(service))

    def saved_log(self, service: str) -> str:
        """Where the log of a started service now lies for good, as the end of a message."""
        source = self._log_folder / f"{service}.log"
        if service not in self._children or not source.exists():
            return ""
        target = state_folder() / "logs" / f"{service}-{time.strftime('%Y%m%d-%H%M%S')}.log"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        except OSError:
            return "; the end of its log:\n" + self._end_of_log(service)
        return f" ({target})"

    def close(self) -> None:
        """Stop every child, at first politely."""
        for child, _ in self._children.values():
            child.terminate()
        for child, _ in self._children.values():
            try:
                child.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdin is not None:
                child.stdin.close()
        self._children.clear()
        self._scratch.cleanup()

    def _start(self, service: str) -> tuple[subprocess.Popen[bytes], int]:
        port_file = Path(self._scratch.name) / f"{service}.port"
        port_file.unlink(missing_ok=True)
        self._log_folder.mkdir(parents=True, exist_ok=True)
        with (self._log_folder / f"{service}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", f"respan_{service}"],
                # Its end closes the pipe, and with it the child: none outlives this process.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment(port_file),
                start_new_session=True,  # Ctrl-C is this process's to handle
            )
        logger.debug("started %s as process %d", service, child.pid)
        return child, self._port_of(service, child, port_file)

    def _environment(self, port_file: Path) -> dict[str, str]:
        models = self.settings.model_roots
        return {
            "RESPAN_HOST": "127.0.0.1",
            "RESPAN_PORT": "0",
            "RESPAN_PORT_FILE": str(port_file),
            "RESPAN_METRICS_PORT": "0",  # several cannot share one, and they do not stay
            "RESPAN_ENDS_WITH_INPUT": "true",
            "RESPAN_DEVICE": self._device,
            "RESPAN_DATA_ROOTS": os.pathsep.join(str(path) for path in self._data_roots),
            "RESPAN_MODEL_ROOTS": os.pathsep.join(str(path.resolve()) for path in models),
        }

    def _port_of(self, service: str, child: subprocess.Popen[bytes], port_file: Path) -> int:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not port_file.exists():
            if child.poll() is not None or time.monotonic() > deadline:
                child.kill()
                raise StageUnavailableError(
                    f"the {service} service does not start; the end of its log:\n"
                    + self._end_of_log(service)
                )
            time.sleep(0.05)
        return int(port_file.read_text())

    def _end_of_log(self, service: str) -> str:
        lines = (self._log_folder / f"{service}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])


_shared: ServicePool | None = None


@contextmanager
def service_pool(
    settings: OrchestratorSettings, data_roots: Sequence[Path], device: str = "auto"
) -> Iterator[ServicePool]:
    """Pool for one run; a run inside a run shares the outer one."""
    global _shared
    if _shared is not None:
        yield _shared
        return
    with ServicePool(settings, data_roots, device) as pool:
        _shared = pool
        try:
            yield pool
        finally:
            _shared = None
