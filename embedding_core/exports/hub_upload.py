"""Datasets of a hub as destinations: ``hf://datasets/owner/name[@branch]``.

The hub's own client uploads; where the hub is and who asks, it knows by itself (``HF_ENDPOINT``,
``HF_TOKEN`` or what ``hf auth login`` wrote). No token goes through here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedding_core.errors import EmbedlakeError, SetupError, Transient, UsageError, words
from embedding_core.exports.manifest import MANIFEST, SPACE, Manifest
from embedding_core.store.faults import Fault, fault_of_status
from embedding_core.store.hub import DEFAULT_REVISION, Dataset, read_file
from embedding_core.store.retry import never_silent
from embedding_core.store.storage import StorageSpec

HAS_CHANGED = frozenset({409, 412})
"""HTTP statuses of a commit whose parent is no longer the newest."""
MADE_BY_THE_HUB = frozenset({".gitattributes"})
"""Files of a repository that nobody has written to."""


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A dataset that an export is uploaded to."""

    dataset: Dataset
    endpoint: str | None
    """The hub's address; None: the client's own."""

    @classmethod
    def parse(cls, uri: str, endpoint: str | None = None) -> HubRepository:
        """Raises ``UsageError`` for a URI that is no whole dataset, ``SetupError`` offline."""
        from huggingface_hub import constants  # only exports to a hub need it loaded

        dataset = Dataset.parse(uri)
        if dataset.path:
            raise UsageError(
                f"{uri} names a folder of a dataset; an export is a whole dataset: "
                f"hf://datasets/{dataset.name}"
            )
        if constants.is_offline_mode():
            raise SetupError("HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it")
        return cls(dataset, endpoint)

    def check_free(self, overwrite: bool, resume: bool) -> Manifest | None:
        """The manifest of the export that the repository holds; None for an empty one.

        Raises ``UsageError`` when it holds an export and neither is asked for, or when it holds
        anything else.
        """
        with self._faults("look at"):
            if not self._api.repo_exists(self.dataset.name, repo_type="dataset"):
                return None
            commit = self._api.repo_info(**self._where).sha
        return self._checked(commit, overwrite, resume)

    def upload(self, folder: Path, message: str, overwrite: bool, resume: bool) -> None:
        """Upload an export that is complete, over an export that is there; see ``check_free``.

        A repository that does not exist is made, a private one. What a broken upload has sent is
        not sent again. Raises ``UsageError``, and has written nothing, when somebody else writes to
        the dataset meanwhile.
        """
        with self._faults("upload to"), never_silent(f"upload to {self.dataset.name}"):
            if not self._api.repo_exists(self.dataset.name, repo_type="dataset"):
                self._make()
            commit = self._api.repo_info(**self._where).sha
            self._checked(commit, overwrite, resume)
            self._api.upload_folder(
                folder_path=folder,
                commit_message=message,
                parent_commit=commit,
                # Of the export before; what is uploaded stays.
                delete_patterns=["data/*", SPACE],
                **self._where,
            )

    def _make(self) -> None:
        """The dataset; a new one has no branch but the default."""
        self._api.create_repo(self.dataset.name, repo_type="dataset", private=True, exist_ok=True)
        if self.dataset.revision != DEFAULT_REVISION:
            self._api.create_branch(
                self.dataset.name, branch=self.dataset.revision, repo_type="dataset", exist_ok=True
            )

    def _checked(self, commit: str, overwrite: bool, resume: bool) -> Manifest | None:
        """The manifest of the export that a commit holds; see ``check_free``."""
        with self._faults("look at"):
            where = self._where | {"revision": commit}
            files = {*self._api.list_repo_files(**where)} - MADE_BY_THE_HUB
        if files and MANIFEST not in files:
            raise UsageError(
                f"the dataset {self.dataset.name} holds files that are no export; name a dataset "
                "that is empty or does not exist yet"
            )
        if not files:
            return None
        manifest = self._manifest(commit)
        if not (overwrite or resume):
            raise UsageError(
                f"the dataset {self.dataset.name} holds an export already", action="overwrite"
            )
        return manifest

    def _manifest(self, commit: str) -> Manifest:
        """What the export of a commit says of itself. Raises ``SetupError`` for a file of another
        tool, which may have the same name."""
        file = replace(self.dataset, path=MANIFEST, revision=commit)
        data = read_file(file, StorageSpec(endpoint_url=self.endpoint))
        return Manifest.from_json(data, f"{MANIFEST} of the dataset {self.dataset.name}")

    @property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint)

    @property
    def _where(self) -> dict[str, str]:
        where = {"repo_id": self.dataset.name, "repo_type": "dataset"}
        if self.dataset.revision != DEFAULT_REVISION:
            where["revision"] = self.dataset.revision
        return where

    @contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        """Put what the client raises into our classes, by the HTTP status behind it."""
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            yield
        except EmbedlakeError:
            raise
        except Exception as error:  # whatever the client and its HTTP library raise
            what = f"cannot {doing} the dataset {self.dataset.name}: {words(error)}"
            if isinstance(error, RevisionNotFoundError):
                branch = self.dataset.revision
                raise SetupError(
                    f"the dataset {self.dataset.name} has no branch {branch!r}; make it "
                    f"on the dataset's page, or leave @{branch} out"
                ) from error
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in HAS_CHANGED:
                raise UsageError(
                    f"the dataset {self.dataset.name} changed while this export was on its way to "
                    "it, and nothing of it was written there; look at what somebody else wrote",
                    action="overwrite",
                ) from error
            fault = Fault.PASSING if status is None else fault_of_status(status)
            if fault is Fault.DENIED or isinstance(error, ValueError):
                raise SetupError(
                    f"{what}; set HF_TOKEN to a token that may write it, or run `hf auth login`"
                ) from error
            if fault is Fault.PASSING:
                raise Transient(f"{what}; it may pass", action="resume") from error
            raise SetupError(f"{what}; correct the name of the dataset") from error
