"""The values about who may reach what, and who watches."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cluster.deploy.kubernetes.section import Labels, Name, Section

Peers = tuple[dict[str, Any], ...]


def _namespace(name: str) -> Peers:
    return ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}},)


class ServiceAccount(Section):
    """The identity of the pods; Ray's head uses it to ask for pods, the others get no token."""

    create: bool = Field(True, description="Whether the chart makes it.")
    name: Name | None = Field(None, description="Its name; the release's if not given.")
    annotations: Labels = Field(
        {}, description="As eks.amazonaws.com/role-arn, with which pods may read a bucket."
    )


class RayToken(Section):
    """Ray's own token authentication, between its processes and for its dashboard and jobs."""

    enabled: bool = Field(True, description="Whether it is asked for.")
    secret: Name | None = Field(
        None, description="Secret with the key `auth_token`; KubeRay makes one if not given."
    )


class Network(Section):
    """A NetworkPolicy for each component: what is not listed here reaches nothing."""

    enabled: bool = Field(True, description="Whether the policies are made.")
    clients: Peers = Field(
        (), description="NetworkPolicy peers that may send requests, as of an ingress."
    )
    operator: Peers = Field(
        _namespace("kuberay-operator"), description="Peers that KubeRay's operator runs as."
    )
    prometheus: Peers = Field(_namespace("monitoring"), description="Peers that read metrics.")
    egress_ports: tuple[int, ...] = Field(
        (443, 6443), description="Ports that pods may reach anywhere: object stores, Kubernetes."
    )


class Monitoring(Section):
    """Objects for the Prometheus operator, and dashboards for Grafana's sidecar."""

    enabled: bool = Field(False, description="Needs the Prometheus operator's CRDs.")
    labels: Labels = Field(
        {}, description="By which a Prometheus selects monitors and rules, as release: prometheus."
    )
    interval: str = Field("15s", pattern=r"^[0-9]+(ms|s|m)$", description="Between scrapes.")
    key_secret: Name | None = Field(
        None, description="Secret whose key `key` is an admin API key, to read the metrics with."
    )
    dashboard_labels: Labels = Field(
        {"grafana_dashboard": "1"}, description="By which Grafana's sidecar finds dashboards."
    )
