"""The chart's manifests: each holds to its kind's schema, and together they fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cluster.cli import app
from cluster.serving.config import ClusterServeConfig
from cluster.training.queue_config import Capacity, QueueConfig
from tests.cluster.deploy.manifest_schemas import InvalidManifestError, check_manifest
from tests.cluster.deploy.values import FULL, RUN, SMALL, Manifests, manifests, pod_templates
from trainer.config import load_run


@pytest.fixture(scope="module")
def full() -> Manifests:
    return manifests(FULL)


@pytest.fixture(scope="module")
def small() -> Manifests:
    return manifests(SMALL)


def worker(found: Manifests, component: str) -> dict[str, Any]:
    return pod_templates(found)[f"{component} worker"]["spec"]


def container(found: Manifests, component: str) -> dict[str, Any]:
    return worker(found, component)["containers"][0]


def test_a_whole_release_holds_to_the_schemas(full: Manifests) -> None:
    kinds = {kind for kind, _ in full}
    assert {"RayService", "RayJob", "RayCluster", "Deployment"} <= kinds
    assert {"NetworkPolicy", "PodDisruptionBudget"} <= kinds
    assert {"PodMonitor", "ServiceMonitor", "ScrapeConfig", "PrometheusRule"} <= kinds


def test_what_is_not_asked_for_is_not_made(small: Manifests) -> None:
    assert set(small) == {
        ("RayService", "demo-serving"),
        ("NetworkPolicy", "demo-serving"),
        ("PodDisruptionBudget", "demo-serving"),
        ("ServiceAccount", "demo"),
    }


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayService", "spec.serveConfigV2", {"applications": []}),
        ("RayService", "spec.rayClusterConfig.workerGroupSpecs.0.minReplicas", "1"),
        ("RayService", "spec.rayClusterConfig.workerGroupSpecs.0.gpus", 1),
        ("RayService", "spec.rayClusterConfig.headGroupSpec.rayStartParams.num-cpus", 0),
        ("RayService", "spec.rayClusterConfig.headGroupSpec.template.spec.contaners", []),
        ("RayService", "spec.serveService.spec.ports.0.port", "http"),
        ("RayService", "spec.rayClusterConfig.autoscalerOptions.resources.limit", {}),
        ("RayJob", "spec.rayClusterConfig", {}),
        ("RayJob", "spec.submissionMode", "Job"),
        ("RayJob", "spec.submitterPodTemplate.spec.restartPolicy", 3),
        ("NetworkPolicy", "spec.ingress.0.form", []),
        ("PodDisruptionBudget", "spec.selector", "all"),
        ("ServiceMonitor", "spec.endpoints.0.prot", "http"),
        ("ScrapeConfig", "spec.httpSDConfigs.0.url", 8000),
        ("PrometheusRule", "spec.groups.0.rules.0.expression", "up"),
    ],
)
def test_a_wrong_manifest_is_refused(full: Manifests, kind: str, path: str, value: Any) -> None:
    wrong = copy.deepcopy(next(one for (found, _), one in full.items() if found == kind))
    part: Any = wrong
    *parents, last = path.split(".")
    for key in parents:
        part = part[int(key)] if isinstance(part, list) else part[key]
    part[last] = value
    with pytest.raises(InvalidManifestError):
        check_manifest(wrong)


def test_a_kind_without_a_schema_is_refused() -> None:
    with pytest.raises(InvalidManifestError, match="RayServe"):
        check_manifest({"apiVersion": "ray.io/v1", "kind": "RayServe", "metadata": {"name": "x"}})


def test_no_pod_runs_as_root_or_writes_to_its_root(full: Manifests) -> None:
    for name, template in pod_templates(full).items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for one in pod["containers"] + pod.get("initContainers", []):
            rights = one["securityContext"]
            assert rights["readOnlyRootFilesystem"], name
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["capabilities"] == {"drop": ["ALL"]}, name


def test_every_mount_is_of_a_volume_of_its_pod(full: Manifests, small: Manifests) -> None:
    for found in (full, small):
        for name, template in pod_templates(found).items():
            pod = template["spec"]
            volumes = {volume["name"] for volume in pod["volumes"]}
            for one in pod["containers"] + pod.get("initContainers", []):
                mounts = [mount["name"] for mount in one["volumeMounts"]]
                assert set(mounts) <= volumes, name
                assert len(set(mounts)) == len(mounts), name


def test_only_the_head_gets_a_token_of_the_cluster(full: Manifests) -> None:
    for name, template in pod_templates(full).items():
        gets_it = template["spec"].get("automountServiceAccountToken", True)
        assert gets_it == name.endswith("head"), name


def test_secrets_are_referred_to_and_never_written(full: Manifests) -> None:
    assert "Secret" not in {kind for kind, _ in full}
    keys = [one for one in worker(full, "serving")["volumes"] if one["name"] == "keys"]
    assert keys[0]["secret"] == {"secretName": "api-keys", "defaultMode": 0o400}
    assert container(full, "serving")["envFrom"] == [{"secretRef": {"name": "store-credentials"}}]
    ray = full["RayService", "demo-serving"]["spec"]["rayClusterConfig"]
    assert ray["authOptions"] == {"mode": "token"}
    password = ray["gcsFaultToleranceOptions"]["redisPassword"]
    assert password == {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}}


def test_policies_budgets_and_monitors_select_the_pods_they_are_for(full: Manifests) -> None:
    templates = pod_templates(full)
    labels = {name: one["metadata"]["labels"] for name, one in templates.items()}

    def chosen(selector: dict[str, str]) -> set[str]:
        # KubeRay adds the node's type by itself.
        wanted = {key: value for key, value in selector.items() if not key.startswith("ray.io/")}
        return {name for name, has in labels.items() if wanted.items() <= has.items()}

    serving = {"serving head", "serving worker"}
    training = {"training head", "training worker", "submitter"}
    queue = {"queue head", "queue worker", "dispatcher"}
    for name, pods in (("serving", serving), ("training", training), ("queue", queue)):
        policy = full["NetworkPolicy", f"demo-{name}"]["spec"]
        assert chosen(policy["podSelector"]["matchLabels"]) == pods
    dispatcher = full["Deployment", "demo-dispatcher"]["spec"]["selector"]["matchLabels"]
    assert chosen(dispatcher) == {"dispatcher"}
    budget = full["PodDisruptionBudget", "demo-serving"]["spec"]["selector"]["matchLabels"]
    assert chosen(budget) == serving
    assert budget["ray.io/node-type"] == "worker"
    monitors = {
        name: full["PodMonitor", f"demo-{name}"]["spec"]["selector"]["matchLabels"]
        for name in ("ray", "trainer", "queue")
    }
    assert chosen(monitors["ray"]) == serving | training | queue
    assert chosen(monitors["trainer"]) == serving | training | queue
    assert chosen(monitors["queue"]) == queue
    # A monitor takes those of its pods that have its port.
    with_port = {
        port: {
            name
            for name, one in templates.items()
            if port in [p["name"] for p in one["spec"]["containers"][0].get("ports", [])]
        }
        for port in ("trainer", "queue")
    }
    assert with_port == {"trainer": {"training worker", "queue worker"}, "queue": {"dispatcher"}}
    service = full["RayService", "demo-serving"]["spec"]["serveService"]["metadata"]["labels"]
    gateway = full["ServiceMonitor", "demo-gateway"]["spec"]["selector"]["matchLabels"]
    assert gateway.items() <= service.items()


def test_nothing_enters_but_what_is_listed(full: Manifests, small: Manifests) -> None:
    open_to_clients = full["NetworkPolicy", "demo-serving"]["spec"]["ingress"][-1]
    assert open_to_clients == {
        "from": [{"podSelector": {"matchLabels": {"app": "ingress"}}}],
        "ports": [{"port": 8000}],
    }
    for found in (full, small):
        for (kind, _), one in found.items():
            if kind == "NetworkPolicy":
                assert set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"}
                assert all(rule["from"] for rule in one["spec"]["ingress"])
    redis = full["NetworkPolicy", "demo-serving"]["spec"]["egress"][-1]["ports"]
    assert {"port": 6380} in redis


def test_a_server_is_reached_inside_the_cluster_alone(full: Manifests) -> None:
    spec = full["RayService", "demo-serving"]["spec"]
    assert spec["serveService"]["spec"]["type"] == "ClusterIP"
    assert spec["rayClusterConfig"]["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_a_pod_that_has_to_go_is_given_time_to_drain(full: Manifests) -> None:
    pod = worker(full, "serving")
    command = container(full, "serving")["lifecycle"]["preStop"]["exec"]["command"]
    seconds = int(command[command.index("--seconds") + 1])
    assert seconds < pod["terminationGracePeriodSeconds"]
    assert seconds < full["RayService", "demo-serving"]["spec"]["rayClusterDeletionDelaySeconds"]


def test_a_worker_is_ready_when_the_gateway_says_so(full: Manifests) -> None:
    one = container(full, "serving")
    assert one["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert {"name": "http", "containerPort": 8000} in one["ports"]


def test_gpus_replicas_and_ranks_follow_the_workers(full: Manifests, small: Manifests) -> None:
    limits = container(full, "training")["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "4"
    entrypoint = full["RayJob", "demo-training"]["spec"]["entrypoint"]
    assert entrypoint == "propulsion train /etc/propulsion/run/run.yaml --ray --workers 8"
    assert "nvidia.com/gpu" not in container(small, "serving")["resources"]["limits"]
    for found, scales in ((full, True), (small, False)):
        ray = found["RayService", "demo-serving"]["spec"]["rayClusterConfig"]
        assert ray["enableInTreeAutoscaling"] is scales
        assert ray["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_an_elastic_run_takes_its_ranks_from_the_run_file() -> None:
    tree = copy.deepcopy(FULL)
    tree["training"]["workers"] = {"min": 1, "max": 4, "gpus": 1}
    job = manifests(tree)["RayJob", "demo-training"]["spec"]
    assert job["entrypoint"] == "propulsion train /etc/propulsion/run/run.yaml --ray"
    assert job["rayClusterSpec"]["enableInTreeAutoscaling"] is True


def test_the_arguments_of_the_serve_application_are_its_own(
    full: Manifests, small: Manifests
) -> None:
    for found, replicas, gpus in ((full, 8, 2), (small, 1, 0)):
        serve = yaml.safe_load(found["RayService", "demo-serving"]["spec"]["serveConfigV2"])
        (application,) = serve["applications"]
        assert application["import_path"] == "cluster.serving.app:build"
        args = ClusterServeConfig.model_validate(application["args"])
        assert args.most_replicas == replicas
        assert args.replica_gpus == gpus
        assert args.asks_for_keys
        pod = container(found, "serving")
        assert str(args.base) in {mount["mountPath"] for mount in pod["volumeMounts"]}


def test_a_dispatcher_has_the_queue_its_settings_and_the_way_to_its_head(full: Manifests) -> None:
    text = full["ConfigMap", "demo-queue"]["data"]["queue.yaml"]
    settings = QueueConfig.model_validate(yaml.safe_load(text))
    assert settings.teams["red"].gpus == 8
    assert settings.capacity == Capacity(gpus=4 * 4, cpus=4 * 16)
    pod = pod_templates(full)["dispatcher"]["spec"]
    (copy_settings,) = pod["initContainers"]
    (dispatcher,) = pod["containers"]
    queue = dispatcher["command"][-1]
    assert copy_settings["command"][-1] == f"{queue}/queue.yaml"
    environment = {one["name"]: one for one in dispatcher["env"]}
    assert environment["PROPULSION_QUEUE"]["value"] == queue
    secret = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    cluster = full["RayCluster", "demo-queue"]
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert secret == {"name": cluster["metadata"]["name"], "key": "auth_token"}
    options = typer.main.get_command(app).commands["queue"]
    parsed = options.make_context("queue", [queue, *dispatcher["args"]]).params
    assert parsed["address"] == f"http://{cluster['metadata']['name']}-head-svc:8265"
    assert {"name": "queue", "containerPort": parsed["metrics_port"]} in dispatcher["ports"]


@pytest.mark.parametrize(("cpus", "whole"), [("8", 8), ("2.5", 3), ("500m", 1), ("1500m", 2)])
def test_a_pod_has_room_for_one_replica_and_the_gateway(cpus: str, whole: int) -> None:
    tree = copy.deepcopy(SMALL)
    tree["serving"]["workers"] = {"cpus": cpus}
    spec = manifests(tree)["RayService", "demo-serving"]["spec"]
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert group["rayStartParams"]["num-cpus"] == str(whole)
    args = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]
    assert args["replica_cpus"] + args["gateway_cpus"] == whole
    assert args["replica_cpus"] * 2 > whole - args["gateway_cpus"]
    assert args["gateway_cpus"] > 0, "it would fit on the head"


def test_ray_serve_takes_its_part_of_the_manifest(full: Manifests) -> None:
    from ray.serve.schema import ServeDeploySchema

    text = full["RayService", "demo-serving"]["spec"]["serveConfigV2"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    assert config.http_options.port == 8000


def test_the_run_file_comes_through_whole(full: Manifests) -> None:
    run = yaml.safe_load(full["ConfigMap", "demo-run"]["data"]["run.yaml"])
    assert run.pop("metrics_port") == 9101
    assert run.pop("metrics_host") == "0.0.0.0"
    assert run == RUN


def test_the_run_file_is_one_that_training_takes(full: Manifests, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    text = full["ConfigMap", "demo-run"]["data"]["run.yaml"]
    path.write_text(text)
    run = load_run(path)
    assert run.output_dir == Path("/runs/sst2")


def test_a_base_in_a_bucket_is_fetched_and_one_on_a_volume_is_mounted(
    full: Manifests, small: Manifests
) -> None:
    (fetch,) = worker(full, "serving")["initContainers"]
    assert fetch["args"] == ["s3://models/llama-7b", "/models/base"]
    assert "initContainers" not in worker(small, "serving")
    base = {"name": "base", "persistentVolumeClaim": {"claimName": "base", "readOnly": True}}
    assert base in worker(small, "serving")["volumes"]


def test_series_carry_the_roles_that_rules_and_dashboards_ask_for(full: Manifests) -> None:
    def role(relabelings: list[dict[str, str]]) -> str:
        (one,) = [rule for rule in relabelings if rule["targetLabel"] == "role"]
        return one["replacement"]

    ray, trainer, queue = (
        full["PodMonitor", f"demo-{name}"]["spec"]["podMetricsEndpoints"][0]
        for name in ("ray", "trainer", "queue")
    )
    gateway = full["ServiceMonitor", "demo-gateway"]["spec"]["endpoints"][0]
    assert role(ray["relabelings"]) == "ray"
    assert role(queue["relabelings"]) == "queue"
    assert role(gateway["relabelings"]) == "gateway"
    assert role(trainer["metricRelabelings"]) == "trainer"
    targets = full["ScrapeConfig", "demo-replicas"]["spec"]["httpSDConfigs"][0]
    assert targets["url"] == "http://demo-gateway.ml.svc:8000/metrics/targets"
