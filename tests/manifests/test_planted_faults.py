"""A fault planted into good manifests is found: by the strict schema or by the checks beside it."""

from collections.abc import Callable
from typing import Any

import pytest
from deploy.k8s.checks import faults
from deploy.k8s.checks.__main__ import NEWEST
from deploy.k8s.checks.objects import Manifests
from deploy.k8s.checks.schemas import schemas
from tests.manifests.rendering import rendered, workload

pytestmark = pytest.mark.manifests

Planting = Callable[[Manifests], Any]


def found(manifests: Manifests) -> list[str]:
    return [*schemas(manifests, NEWEST), *faults(manifests.objects)]


def spec(manifests: Manifests, kind: str, name: str) -> dict[str, Any]:
    thing = manifests.find(kind, name)
    assert thing is not None
    return thing["spec"]


def pod(manifests: Manifests, name: str = "segmentation") -> dict[str, Any]:
    return workload(manifests, name).object["spec"]["template"]["spec"]


def container(manifests: Manifests, name: str = "segmentation") -> dict[str, Any]:
    return pod(manifests, name)["containers"][0]


def variable(manifests: Manifests, name: str, of: str = "segmentation") -> dict[str, Any]:
    (one,) = [one for one in container(manifests, of)["env"] if one["name"] == name]
    return one


def without(manifests: Manifests, kind: str, name: str) -> None:
    thing = manifests.find(kind, name)
    assert thing is not None
    manifests.objects.remove(thing)


def misspell_probe(m: Manifests) -> None:
    container(m)["livenessProbe"]["tcpSockt"] = container(m)["livenessProbe"].pop("tcpSocket")


def volume(m: Manifests, name: str) -> dict[str, Any]:
    (one,) = [one for one in pod(m)["volumes"] if one["name"] == name]
    return one


def sleepless(m: Manifests) -> None:
    pod(m)["terminationGracePeriodSeconds"] = 120


FAULTS: dict[str, tuple[Planting, str]] = {
    "misspelt field": (misspell_probe, "tcpSockt"),
    "text for a number": (
        lambda m: spec(m, "Deployment", "worker").update(replicas="1"),
        "replicas",
    ),
    "API version that is gone": (
        lambda m: m.find("PodDisruptionBudget", "training").update(apiVersion="policy/v1beta1"),
        "has no PodDisruptionBudget of policy/v1beta1",
    ),
    "unknown field of a scaler": (
        lambda m: spec(m, "ScaledObject", "segmentation").update(minReplicas=1),
        "spec.minReplicas is no field of ScaledObject",
    ),
    "Service that selects nothing": (
        lambda m: spec(m, "Service", "training").update(selector={"app": "training"}),
        "Service/training: selects no pod",
    ),
    "Deployment that misses its pods": (
        lambda m: spec(m, "Deployment", "training")["selector"].update(matchLabels={"a": "b"}),
        "Deployment/training: its selector misses its own pods",
    ),
    "two Deployments with one selector": (
        lambda m: spec(m, "Deployment", "training")["selector"].update(matchLabels={}),
        "Deployment/training: its selector finds the pods of others",
    ),
    "port name that is not there": (
        lambda m: spec(m, "Service", "training")["ports"][0].update(targetPort="grp"),
        "Deployment/training has no port grp",
    ),
    "object in another namespace": (
        lambda m: m.find("Service", "training")["metadata"].update(namespace="default"),
        "Service/training: lies in namespace default",
    ),
    "claim that is not there": (
        lambda m: without(m, "PersistentVolumeClaim", "models"),
        "no PersistentVolumeClaim/models",
    ),
    "claim that nobody uses": (
        lambda m: m.find("PersistentVolumeClaim", "models")["metadata"].update(name="model"),
        "PersistentVolumeClaim/model: nobody uses it",
    ),
    "settings that are not there": (
        lambda m: container(m)["envFrom"][0]["configMapRef"].update(name="stage-setings"),
        "no ConfigMap/stage-setings",
    ),
    "secret that is not there": (
        lambda m: volume(m, "tls")["secret"].update(secretName="segmentation"),
        "no Secret/segmentation",
    ),
    "variable with two values": (
        lambda m: variable(m, "RESPAN_TOKEN").update(value="secret"),
        "RESPAN_TOKEN has two values",
    ),
    "key that a secret lacks": (
        lambda m: variable(m, "RESPAN_TOKEN")["valueFrom"]["secretKeyRef"].update(key="TOKEN"),
        "Secret/respan has no TOKEN",
    ),
    "account that is not there": (
        lambda m: pod(m).update(serviceAccountName="admin"),
        "no ServiceAccount/admin",
    ),
    "access mode that is none": (
        lambda m: spec(m, "PersistentVolumeClaim", "data").update(accessModes=["ReadWriteManny"]),
        "unknown access mode",
    ),
    "quantity that is none": (
        lambda m: container(m)["resources"]["limits"].update(memory="16Gigs"),
        "16Gigs of memory is no quantity",
    ),
    "more asked for than allowed": (
        lambda m: container(m)["resources"]["requests"].update(memory="17Gi"),
        "asks for more memory than its limit",
    ),
    "GPU asked for, but not granted": (
        lambda m: container(m)["resources"]["limits"].pop("nvidia.com/gpu"),
        "nvidia.com/gpu is not the same",
    ),
    "scaler without a target": (
        lambda m: spec(m, "ScaledObject", "segmentation")["scaleTargetRef"].update(name="segment"),
        "ScaledObject/segmentation: no Deployment/segment",
    ),
    "scaler and number of replicas": (
        lambda m: spec(m, "Deployment", "segmentation").update(replicas=2),
        "says its replicas itself",
    ),
    "budget that blocks a node": (
        lambda m: spec(m, "PodDisruptionBudget", "training").update(maxUnavailable=0),
        "blocks the draining of nodes",
    ),
    "probe of another port": (
        lambda m: container(m)["readinessProbe"]["tcpSocket"].update(port="http"),
        "readinessProbe asks a port that is not there",
    ),
    "probe by gRPC with TLS": (
        lambda m: container(m)["livenessProbe"].update(grpc={"port": 50051}),
        "livenessProbe by gRPC knows no TLS",
    ),
    "no probe": (lambda m: container(m).pop("startupProbe"), "no startupProbe"),
    "mount without a volume": (
        lambda m: volume(m, "scratch").update(name="scrap"),
        "no volume scratch",
    ),
    "two mounts at one path": (
        lambda m: container(m)["volumeMounts"][1].update(mountPath="/data"),
        "two mounts at one path",
    ),
    "image without a version": (
        lambda m: container(m).update(image="registry.lab:5000/respan/segmentation"),
        "has no version",
    ),
    "kill before the end of the grace": (sleepless, "is killed after 120 s"),
    "root": (lambda m: pod(m)["securityContext"].update(runAsUser=0), "other than root"),
    "writable root file system": (
        lambda m: container(m)["securityContext"].update(readOnlyRootFilesystem=False),
        "not readOnlyRootFilesystem",
    ),
    "folder of the host": (
        lambda m: volume(m, "scratch").update(hostPath={"path": "/"}),
        "not no folders of the host",
    ),
    "variables of Services": (
        lambda m: pod(m, "prefect").update(enableServiceLinks=True),
        "not enableServiceLinks: false",
    ),
    "address of no Service": (
        lambda m: variable(m, "RESPAN_TRAINING_ADDRESS", "worker").update(
            value="dns:///trainer:50051"
        ),
        "no Service/trainer",
    ),
    "address with another port": (
        lambda m: variable(m, "PREFECT_API_URL", "worker").update(value="http://prefect:80/api"),
        "Service/prefect has no port 80",
    ),
    "Service that hides its replicas": (
        lambda m: spec(m, "Service", "segmentation").pop("clusterIP"),
        "hides its replicas",
    ),
    "no way out": (
        lambda m: spec(m, "NetworkPolicy", "worker").update(egress=[]),
        "no policy lets it out",
    ),
    "no way in": (
        lambda m: spec(m, "NetworkPolicy", "postgres").update(ingress=[]),
        "no policy lets it into StatefulSet/postgres",
    ),
    "no names": (
        lambda m: without(m, "NetworkPolicy", "names"),
        "no policy lets it look up names",
    ),
    "policy for nobody": (
        lambda m: spec(m, "NetworkPolicy", "stages")["podSelector"].update(
            matchLabels={"app.kubernetes.io/component": "stages"}
        ),
        "NetworkPolicy/stages: selects no pod",
    ),
    "policy for a port that nobody has": (
        lambda m: spec(m, "NetworkPolicy", "prefect")["ingress"][0]["ports"][0].update(port=80),
        "opens port 80",
    ),
    "second door": (
        lambda m: spec(m, "Service", "segmentation").update(type="NodePort"),
        "can be reached from outside",
    ),
    "door to a stage": (
        lambda m: spec(m, "Ingress", "prefect")["rules"][0]["http"]["paths"][0]["backend"][
            "service"
        ].update(name="training"),
        "lets people reach training",
    ),
    "door without TLS": (lambda m: spec(m, "Ingress", "prefect").pop("tls"), "is not encrypted"),
    "page at another name": (
        lambda m: spec(m, "Ingress", "prefect")["rules"][0].update(host="lab.example.org"),
        "PREFECT_UI_API_URL=https://respan.example.org/api is not at",
    ),
    "certificate of another name": (
        lambda m: spec(m, "Certificate", "training").update(dnsNames=["trainer"]),
        "Certificate/training: is not for training",
    ),
    "issuer that is not there": (
        lambda m: without(m, "Issuer", "authority"),
        "no Issuer/authority",
    ),
    "certificate at another path": (
        lambda m: variable(m, "RESPAN_TLS_KEY").update(value="/run/tls/key.pem"),
        "RESPAN_TLS_KEY=/run/tls/key.pem is no file of a mounted secret",
    ),
    "monitor of another port": (
        lambda m: spec(m, "PodMonitor", "stages")["podMetricsEndpoints"][0].update(port="http"),
        "PodMonitor/stages: Deployment/restoration has no port http",
    ),
    "the same object twice": (
        lambda m: m.objects.append(m.find("Service", "training")),
        "Service/training: is there twice",
    ),
    "size that is none": (
        lambda m: spec(m, "PersistentVolumeClaim", "data")["resources"]["requests"].update(
            storage="500Gigs"
        ),
        "PersistentVolumeClaim/data: 500Gigs of storage is no quantity",
    ),
    "size of scratch that is none": (
        lambda m: volume(m, "scratch")["emptyDir"].update(sizeLimit="10 Gi"),
        "10 Gi of sizeLimit is no quantity",
    ),
    "memory without a limit": (
        lambda m: container(m)["resources"]["limits"].pop("memory"),
        "stage does not say its memory",
    ),
    "setting that a ConfigMap lacks": (
        lambda m: container(m)["env"].append(
            {
                "name": "RESPAN_DEVICE",
                "valueFrom": {
                    "configMapKeyRef": {
                        "name": container(m)["envFrom"][0]["configMapRef"]["name"],
                        "key": "DEVICE",
                    }
                },
            }
        ),
        "has no DEVICE",
    ),
    "volume that nobody mounts": (
        lambda m: container(m)["volumeMounts"].pop(),
        "Deployment/segmentation: nobody mounts",
    ),
    "capability": (
        lambda m: container(m)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
        "not drop [ALL]",
    ),
    "account's token in the pod": (
        lambda m: pod(m).update(automountServiceAccountToken=True),
        "not automountServiceAccountToken: false",
    ),
    "policy with a peer that is not there": (
        lambda m: spec(m, "NetworkPolicy", "stages")["ingress"][0]["from"][0]["podSelector"].update(
            matchLabels={"app.kubernetes.io/name": "orchestrator"}
        ),
        "NetworkPolicy/stages: names a peer that is not there",
    ),
    "door to a port that is not there": (
        lambda m: spec(m, "Ingress", "prefect")["rules"][0]["http"]["paths"][0]["backend"][
            "service"
        ]["port"].update(name="https"),
        "Service/prefect has no port",
    ),
    "authority without a key": (
        lambda m: spec(m, "Issuer", "authority")["ca"].update(secretName="ca"),
        "Issuer/authority: no Secret/ca",
    ),
    "monitor of nobody": (
        lambda m: spec(m, "PodMonitor", "stages")["selector"].update(matchLabels={"a": "b"}),
        "PodMonitor/stages: selects no pod",
    ),
    "database without its Service": (
        lambda m: without(m, "Service", "postgres"),
        "no headless Service/postgres",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault):
    plant, message = FAULTS[fault]
    manifests = rendered("cluster")
    plant(manifests)
    assert [line for line in found(Manifests(manifests.objects)) if message in line]
