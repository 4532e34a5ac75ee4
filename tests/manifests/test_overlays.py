"""Every overlay renders to manifests that Kubernetes understands and that fit together."""

import os
import re

import pytest
import yaml
from deploy.k8s import monitoring
from deploy.k8s.checks import faults
from deploy.k8s.checks.__main__ import NEWEST
from deploy.k8s.checks.objects import SECRETS, Manifests
from deploy.k8s.checks.pods import quantity
from deploy.k8s.checks.schemas import schemas
from tests.manifests.rendering import K8S, OVERLAYS, kustomized, rendered, workload

from respan.v1 import quantification_pb2, restoration_pb2, segmentation_pb2, training_pb2
from respan_common import __version__
from respan_common.settings import ServiceSettings
from respan_orchestrator.settings import SERVICES, OrchestratorSettings

pytestmark = pytest.mark.manifests

GPU = "nvidia.com/gpu"
MESSAGES = (quantification_pb2, restoration_pb2, segmentation_pb2, training_pb2)
HEALTH_NAMES = {
    service.full_name
    for module in MESSAGES
    for service in module.DESCRIPTOR.services_by_name.values()
}
OF_THE_DATABASE = {"RESPAN_DATABASE_PASSWORD"}
"""Becomes a part of PREFECT_API_DATABASE_CONNECTION_URL."""


def gpus(manifests: Manifests) -> dict[str, str]:
    return {
        one.object["metadata"]["name"]: limits[GPU]
        for one in manifests.workloads
        if GPU in (limits := one.containers[0]["resources"]["limits"])
    }


def stage_variables(manifests: Manifests, stage: str) -> dict[str, str]:
    return manifests.environment(workload(manifests, stage).containers[0])


@pytest.mark.parametrize("version", ["1.32", NEWEST])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_knows_every_field(overlay, version):
    assert list(schemas(rendered(overlay), version)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_that_is_named_is_there_and_fits(overlay):
    assert faults(rendered(overlay).objects) == []


def test_every_component_is_part_of_an_overlay():
    used = set()
    for file in K8S.glob("*/*/kustomization.yaml"):
        listed = yaml.safe_load(file.read_text()).get("components", [])
        used |= {(file.parent / path).resolve() for path in listed}
    assert used == {path for path in (K8S / "components").iterdir() if path.is_dir()}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_variables_of_ours_are_settings_that_somebody_reads(overlay):
    fields = {*ServiceSettings.model_fields, *OrchestratorSettings.model_fields}
    known = {f"RESPAN_{name.upper()}" for name in fields} | OF_THE_DATABASE
    manifests = rendered(overlay)
    given = {
        name
        for one in manifests.workloads
        for container in one.containers
        for name in manifests.variables(container)
        if name.startswith("RESPAN_")
    }
    assert given <= known


def test_readiness_asks_each_stage_by_its_own_name():
    manifests = rendered("cpu")
    asked = {
        workload(manifests, stage).containers[0]["readinessProbe"]["grpc"]["service"]
        for stage in SERVICES
    }
    assert asked == HEALTH_NAMES


def test_images_have_the_version_of_the_packages():
    ours = {
        container["image"]
        for one in rendered("cluster").workloads
        for container in one.containers
        if container["image"].startswith("respan/")
    }
    assert ours == {f"respan/{name}:{__version__}" for name in (*SERVICES, "orchestrator")}


def test_a_registry_can_be_put_in_front_of_an_overlay(tmp_path):
    overlay = os.path.relpath(K8S / "overlays" / "cpu", tmp_path)
    image = {"name": "respan/training", "newName": "registry.lab/respan/training", "newTag": "9"}
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [overlay], "images": [image]})
    )
    training = workload(Manifests(kustomized(tmp_path)), "training")
    assert training.containers[0]["image"] == "registry.lab/respan/training:9"


def test_the_overlay_that_the_readme_shows_renders_without_a_fault(tmp_path):
    (shown,) = re.findall(r"```yaml\n(.*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    here = os.path.relpath(K8S.parents[1], tmp_path)
    (tmp_path / "kustomization.yaml").write_text(shown.replace("../RESPAN", here))
    manifests = Manifests(kustomized(tmp_path))
    images = [workload(manifests, name).containers[0]["image"] for name in SERVICES]
    assert faults(manifests.objects) == []
    assert any(image.startswith("registry.lab/") for image in images)


def test_the_readme_lists_every_overlay_and_component():
    readme = (K8S / "README.md").read_text()
    folders = [*(K8S / "overlays").iterdir(), *(K8S / "components").iterdir()]
    assert [folder.name for folder in folders if f"| `{folder.name}` |" not in readme] == []


def test_stages_of_one_node_reserve_no_more_than_a_workstation_has():
    stages = [workload(rendered("single-gpu-node"), name).containers[0] for name in SERVICES]
    requests = [stage["resources"]["requests"] for stage in stages]
    assert sum(quantity(one["cpu"]) for one in requests) <= 2
    assert sum(quantity(one["memory"]) for one in requests) <= quantity("4Gi")
    assert stage_variables(rendered("single-gpu-node"), "training")["RESPAN_THREADS"] == "0"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_the_manifests(overlay):
    assert rendered(overlay).of("Secret") == []


def test_examples_of_secrets_hold_no_values():
    lines = [line for path in SECRETS.glob("*.example") for line in path.read_text().splitlines()]
    assert lines
    assert [line for line in lines if not line.startswith("#") and line.partition("=")[2]] == []


@pytest.mark.parametrize("overlay", ["cluster", "cluster-object-store", "single-gpu-node"])
def test_three_stages_have_a_gpu_and_insist_on_it(overlay):
    manifests = rendered(overlay)
    assert gpus(manifests) == dict.fromkeys(("restoration", "segmentation", "training"), "1")
    assert all(
        stage_variables(manifests, name)["RESPAN_DEVICE"] == "cuda" for name in gpus(manifests)
    )
    assert stage_variables(manifests, "quantification")["RESPAN_DEVICE"] == "auto"


def test_without_a_gpu_nobody_asks_for_one():
    manifests = rendered("cpu")
    assert gpus(manifests) == {}
    assert {stage_variables(manifests, name)["RESPAN_DEVICE"] for name in SERVICES} == {"cpu"}


def test_who_shares_a_card_holds_a_lease_and_keeps_no_memory():
    manifests = rendered("single-gpu-node")
    for name in gpus(manifests):
        variables = stage_variables(manifests, name)
        mounts = workload(manifests, name).containers[0]["volumeMounts"]
        lease = [mount["name"] for mount in mounts if mount["mountPath"] == "/run/gpu-lease"]
        assert variables["RESPAN_GPU_LEASE_FOLDER"] == "/run/gpu-lease"
        assert lease == ["gpu-lease"]
        assert variables["RESPAN_KEEP_ALIVE_S"] == "0"


def test_a_lease_never_lies_where_two_nodes_could_hold_it():
    (claim,) = [
        claim
        for claim in rendered("single-gpu-node").of("PersistentVolumeClaim")
        if claim["metadata"]["name"] == "gpu-lease"
    ]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_the_card_is_sliced_for_as_many_pods_as_ask_for_it():
    file = K8S / "components" / "gpu-shared" / "device-plugin.yaml"
    config = yaml.safe_load(file.read_text())
    sharing = yaml.safe_load(config["data"]["any"])["sharing"]["timeSlicing"]
    slices = {one["name"]: one["replicas"] for one in sharing["resources"]}
    assert list(schemas(Manifests([config]), NEWEST)) == []
    assert slices == {GPU: len(gpus(rendered("single-gpu-node")))}


@pytest.mark.parametrize("overlay", ["cluster", "single-gpu-node"])
def test_as_many_stages_are_let_through_as_there_can_be_cards(overlay):
    manifests = rendered(overlay)
    most = {
        scaler["spec"]["scaleTargetRef"]["name"]: scaler["spec"]["maxReplicaCount"]
        for scaler in manifests.of("ScaledObject")
    }
    cards = sum(most.get(name, 1) for name in gpus(manifests)) if most else 1
    assert stage_variables(manifests, "worker")["RESPAN_GPU_SLOTS"] == str(cards)


def test_alerts_and_dashboard_of_the_operator_are_those_of_deploy_monitoring():
    assert monitoring.TARGET.read_text() == monitoring.text()


def test_a_cluster_encrypts_every_call_to_a_stage():
    manifests = rendered("cluster")
    assert all("RESPAN_TLS_CLIENT_CA" in stage_variables(manifests, name) for name in SERVICES)
    assert "RESPAN_TLS_CLIENT_KEY" in stage_variables(manifests, "worker")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_page_asks_for_a_password(overlay):
    manifests = rendered(overlay)
    (page,) = workload(manifests, "prefect").containers
    assert "PREFECT_SERVER_API_AUTH_STRING" in set(manifests.variables(page))


def test_a_bucket_replaces_the_shared_file_systems():
    manifests = rendered("cluster-object-store")
    claims = manifests.of("PersistentVolumeClaim")
    modes = {claim["metadata"]["name"]: claim["spec"]["accessModes"] for claim in claims}
    users = [
        one.object["metadata"]["name"]
        for one in manifests.workloads
        for volume in one.pod["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert modes == {"data": ["ReadWriteOnce"]}
    assert users == ["worker"]
    assert all(
        "AWS_SECRET_ACCESS_KEY" in set(manifests.variables(workload(manifests, name).containers[0]))
        for name in (*SERVICES, "worker")
    )
