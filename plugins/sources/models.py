"""Finished models out of MLflow's registry: `models:/name@alias` and `models:/name/3`."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from framework.errors import UserError
from plugins._mlflow import bounded, connect, database, public, store

_ADDRESS = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))")
_FILES = ("model.safetensors", "experiment.toml", "info.json")
_WAIT = 10
"""Seconds that a server may take for an answer."""


@attrs.frozen
class Models:
    """Fetches files and nothing else: MLflow's own loaders would execute what they find."""

    def fetch(self, address: str, folder: Path) -> Path:
        """Download a registered version into `folder`; the folder in it that holds the model."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise UserError(f"{address}: models are 'models:/NAME@ALIAS' or 'models:/NAME/VERSION'")
        uri = store()
        file = database(uri)
        # opened all the same, sqlite would create it
        if file is not None and not file.is_file():
            raise UserError(f"{address}: no MLflow store at {file}; set MLFLOW_TRACKING_URI")
        with bounded(_WAIT):
            self._download(address, match, uri, folder)
        for weights in sorted(folder.rglob(_FILES[0])):
            if all((weights.parent / name).is_file() for name in _FILES):
                return weights.parent
        raise UserError(
            f"{address}: not a model of ours: no folder in it holds {', '.join(_FILES)}"
        )

    def _download(self, address: str, match: re.Match[str], uri: str, folder: Path) -> None:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        name, alias, version = match["name"], match["alias"], match["version"]
        try:
            client = connect(uri)
            if alias:
                version = client.get_model_version_by_alias(name, alias).version
            source = client.get_model_version_download_uri(name, version)
            download_artifacts(source, dst_path=str(folder), tracking_uri=uri)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                reason = f"no such model at {public(uri)}"
            else:
                reason = f"can't be read from {public(uri)}"
            raise UserError(f"{address}: {reason} ({public(error)})") from error
        except OSError as error:
            raise UserError(f"{address}: its files can't be fetched ({public(error)})") from error
