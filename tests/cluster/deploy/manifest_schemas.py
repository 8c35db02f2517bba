"""Checks manifests against the schemas of their kinds, offline, as kubeconform does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1, v1alpha1

KUBERNETES = "1.32"
RAY_SCHEMA = Path(__file__).parent / "schemas" / "ray_v1.yaml"
PROMETHEUS_OPERATOR = {
    "ServiceMonitor": v1.ServiceMonitor,
    "PodMonitor": v1.PodMonitor,
    "PrometheusRule": v1.PrometheusRule,
    "ScrapeConfig": v1alpha1.ScrapeConfig,
}


class InvalidManifestError(Exception):
    """A manifest that the API server would refuse, or whose fields it would drop."""


def check_manifests(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML text, each of which holds to the schema of its kind."""
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        check_manifest(document)
    return documents


def check_manifest(document: dict[str, Any]) -> None:
    """Raises InvalidManifestError, also for a kind whose schema is not at hand."""
    group = document["apiVersion"].partition("/")[0]
    name = f"{document['kind']} {document['metadata'].get('name')}"
    try:
        if group == "ray.io":
            check_ray(document)
        elif group == "monitoring.coreos.com":
            schema = prometheus_schema(document["kind"])
            jsonschema.validate(document, schema, jsonschema.Draft202012Validator)
        else:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except jsonschema.ValidationError as error:
        raise InvalidManifestError(f"{name}: {error.json_path}: {error.message}") from error
    except kubernetes_validate.SchemaNotFoundError as error:
        raise InvalidManifestError(f"{name}: {error.message}") from error


def check_ray(document: dict[str, Any]) -> None:
    schema = ray_schema()
    if document["kind"] not in schema["$defs"]:
        raise InvalidManifestError(f"KubeRay has no kind {document['kind']}")
    whole = schema | {"$ref": f"#/$defs/{document['kind']}"}
    jsonschema.validate(document, whole, with_kubernetes_kinds())


@cache
def ray_schema() -> dict[str, Any]:
    return yaml.safe_load(RAY_SCHEMA.read_text())


@cache
def with_kubernetes_kinds() -> type[jsonschema.Draft202012Validator]:
    """Takes the keyword `kubernetes` for the kind, or the part of a container, that a value is."""

    def check(_: Any, kind: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
        try:
            kubernetes_validate.validate(as_object(kind, value), KUBERNETES, strict=True)
        except jsonschema.ValidationError as error:
            yield jsonschema.ValidationError(f"{error.json_path}: {error.message}")

    return jsonschema.validators.extend(jsonschema.Draft202012Validator, {"kubernetes": check})


def as_object(kind: str, value: Any) -> dict[str, Any]:
    """A whole Kubernetes object around a part of one."""
    name = {"metadata": {"name": "part"}}
    if kind == "PodTemplate":
        return {"apiVersion": "v1", "kind": kind, **name, "template": value}
    if kind == "Service":
        return {"apiVersion": "v1", "kind": kind, **name, **value}
    if kind == "ConfigMap":
        return {"apiVersion": "v1", "kind": kind, "metadata": value}
    container = {"name": "part", kind.removeprefix("container."): value}
    return {"apiVersion": "v1", "kind": "Pod", **name, "spec": {"containers": [container]}}


@cache
def prometheus_schema(kind: str) -> dict[str, Any]:
    """The operator's schema of a kind, with unknown fields refused."""
    if kind not in PROMETHEUS_OPERATOR:
        raise InvalidManifestError(f"the Prometheus operator has no kind {kind}")
    text = json.dumps(PROMETHEUS_OPERATOR[kind].model_json_schema(by_alias=True))
    # Go's regular expressions take a flag after the anchor, Python's do not.
    schema = json.loads(text.replace("^(?i)", "(?i)^"))
    for part in (schema, *schema["$defs"].values()):
        if "properties" in part:
            part.setdefault("additionalProperties", False)
    return schema
