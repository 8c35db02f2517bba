"""Values of the chart for the tests: a bucket and a volume, GPUs and none."""

from __future__ import annotations

from typing import Any

from cluster.deploy.kubernetes.render import render
from cluster.deploy.kubernetes.values import Values
from tests.cluster.deploy.manifest_schemas import check_manifests

Manifests = dict[tuple[str, str], dict[str, Any]]
"""By kind and name."""

RUN = {
    "name": "sst2",
    "base": "/models/base",
    "output_dir": "/runs/sst2",
    "task": {"type": "answer", "answer": "choice", "max_new_tokens": 3},
    "adapter": {"preset": "all", "degree": 15},
    "data": {
        "train": "/runs/data/train.tsv",
        "test": "/runs/data/test.tsv",
        "records": {
            "format": "tsv",
            "text": "sentence",
            "label": "label",
            "labels": {"0": "bad", "1": "good"},
        },
        "prompt": "{text}\nThis is",
    },
    "training": {"steps": 250, "batch_size": 64},
    "deepspeed": {"stage": 3},
    "publish": {"store": "s3://adapters/store"},
}

FULL: dict[str, Any] = {
    "image": {
        "repository": "registry.example.com/ml/propulsion",
        "digest": "sha256:" + "ab" * 32,
        "pullSecrets": ["registry"],
    },
    "base": {"name": "llama", "url": "s3://models/llama-7b"},
    "store": {"url": "s3://adapters/store", "credentialsSecret": "store-credentials"},
    "runs": {"claim": "runs", "create": True, "storageClass": "shared"},
    "environment": {"NCCL_DEBUG": "WARN"},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/ml"}},
    "network": {"clients": [{"podSelector": {"matchLabels": {"app": "ingress"}}}]},
    "monitoring": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "keySecret": "metrics-key",
    },
    "training": {
        "enabled": True,
        "run": RUN,
        "workers": {
            "min": 2,
            "max": 2,
            "gpus": 4,
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        },
        "deadlineSeconds": 86400,
    },
    "queue": {
        "enabled": True,
        "settings": {"teams": {"red": {"gpus": 8}, "blue": {"gpus": 4}}},
        "workers": {"min": 0, "max": 4, "gpus": 4, "cpus": "15500m"},
    },
    "serving": {
        "enabled": True,
        "keysSecret": "api-keys",
        "workers": {"min": 1, "max": 8, "gpus": 2},
        "tensorParallel": 2,
        "redis": {"address": "redis.ml:6380", "passwordSecret": "redis"},
        "options": {"max_adapters": 256},
    },
}

SMALL: dict[str, Any] = {
    "image": {"repository": "propulsion", "tag": "cpu"},
    "base": {"name": "tiny-base", "claim": "base"},
    "store": {"url": "/runs/store"},
    "runs": {"claim": "runs"},
    "serving": {"enabled": True, "keysSecret": "api-keys"},
}


def manifests(tree: dict[str, Any], release: str = "demo", namespace: str = "ml") -> Manifests:
    """What the chart makes of some values, each document checked against its schema."""
    text = render(Values.model_validate(tree), release=release, namespace=namespace)
    documents = check_manifests(text)
    named = {(one["kind"], one["metadata"]["name"]): one for one in documents}
    assert len(named) == len(documents), "two objects of one kind have the same name"
    return named


def pod_templates(found: Manifests) -> dict[str, dict[str, Any]]:
    """Every pod template of the Ray clusters, by whose it is."""
    service, job = found.get(("RayService", "demo-serving")), found.get(("RayJob", "demo-training"))
    queue = found.get(("RayCluster", "demo-queue"))
    templates = {}
    for name, cluster in (
        ("serving", service and service["spec"]["rayClusterConfig"]),
        ("training", job and job["spec"]["rayClusterSpec"]),
        ("queue", queue and queue["spec"]),
    ):
        if cluster:
            templates[f"{name} head"] = cluster["headGroupSpec"]["template"]
            templates[f"{name} worker"] = cluster["workerGroupSpecs"][0]["template"]
    if job:
        templates["submitter"] = job["spec"]["submitterPodTemplate"]
    if queue:
        templates["dispatcher"] = found["Deployment", "demo-dispatcher"]["spec"]["template"]
    return templates
