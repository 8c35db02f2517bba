"""Renders the chart by Helm's own engine, without a `helm` command and without a cluster."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cluster.deploy.kubernetes.values import Values
from propulsion.errors import ConfigError, PropulsionError

CHART = Path(__file__).parents[1] / "chart"


class RenderError(PropulsionError):
    """The chart cannot be rendered."""


def render(values: Values, *, release: str, namespace: str) -> str:
    """The manifests that the chart makes of some values.

    Args:
        values: of the chart.
        release: name of the Helm release, which begins the names of all objects.
        namespace: that they will be applied to.

    Returns:
        YAML documents, separated by `---`.

    Raises:
        ConfigError: Helm refuses the values or the name.
        RenderError: the package helm-python-sdk is missing, or a template fails.
    """
    try:
        import helm_python
    except ImportError as error:
        raise RenderError(
            "rendering needs Helm's library: pip install helm-python-sdk; or use the chart with "
            f"helm itself: helm template {release} {CHART} --values FILE"
        ) from error
    try:
        helm_python.validate_release_name(release)
        with tempfile.TemporaryDirectory() as folder:
            # Its link to the monitoring files is followed here: Helm's library would tell of it.
            copy = shutil.copytree(CHART, Path(folder) / CHART.name)
            with helm_python.Chart.load(copy) as chart:
                files = chart.render(values.tree(), name=release, namespace=namespace)
    except (helm_python.HelmValuesError, helm_python.HelmInvalidArgError) as error:
        raise ConfigError(f"release {release}: {error}") from error
    except helm_python.HelmError as error:
        raise RenderError(f"{CHART}: {error}") from error
    texts = [text.strip() for name, text in sorted(files.items()) if not name.endswith(".txt")]
    documents = [text.removeprefix("---").strip() for text in texts if text.strip("-\n ")]
    return "\n---\n".join(documents) + "\n"
