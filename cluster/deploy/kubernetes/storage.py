"""The values about what the pods read and write."""

from __future__ import annotations

from pydantic import Field, model_validator

from cluster.deploy.kubernetes.section import FolderPath, Name, Quantity, Section


class BaseModelSource(Section):
    """The frozen base model: on a volume, or in a bucket from which every pod copies it."""

    name: str = Field(min_length=1, description="Name of the base in requests.")
    path: FolderPath = Field("/models/base", description="Where pods find its folder.")
    claim: Name | None = Field(
        None, description="PersistentVolumeClaim that holds the folder; it is mounted read-only."
    )
    url: str | None = Field(
        None, description="Or s3://bucket/prefix, or another URL that fsspec reads."
    )
    size: Quantity = Field("40Gi", description="Room for a base that is copied.")
    offline: bool = Field(True, description="Whether the model hub is never asked for anything.")

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> BaseModelSource:
        if (self.claim is None) == (self.url is None):
            raise ValueError("give either claim (a volume) or url (a bucket)")
        return self


class Store(Section):
    """The adapter store, to which training publishes and from which serving loads."""

    url: str = Field(
        min_length=1,
        description="s3://bucket/prefix or another URL, or a folder on the volume of `runs`.",
    )
    credentials_secret: Name | None = Field(
        None,
        description="Secret whose keys become environment variables, as AWS_ACCESS_KEY_ID; not "
        "needed where the service account has the rights.",
    )


class Runs(Section):
    """The volume that runs write checkpoints and results to; all ranks must reach it."""

    claim: Name | None = Field(None, description="PersistentVolumeClaim, ReadWriteMany.")
    path: FolderPath = Field("/runs", description="Where pods find it.")
    create: bool = Field(False, description="Whether the chart makes the claim, and keeps it.")
    size: Quantity = Field("100Gi", description="Of a claim that the chart makes.")
    storage_class: str | None = Field(
        None, description="Of a claim that the chart makes; the cluster's default if not given."
    )

    @model_validator(mode="after")
    def _a_claim_has_a_name(self) -> Runs:
        if self.create and self.claim is None:
            raise ValueError("create: true needs the name of the claim (claim)")
        return self


class Scratch(Section):
    """What a pod writes and loses: its root file system is read-only."""

    size: Quantity = Field("20Gi", description="Of /tmp and of the home folder, each.")
    shared_memory: Quantity = Field("8Gi", description="Of /dev/shm, Ray's object store.")
