"""Bundles: one net with everything that is needed to run, verify and measure it."""

from scalenas_runtime.bundle.engines import EngineEntry, build_engine, place_of
from scalenas_runtime.bundle.manifest import (
    CalibrationEntry,
    FileEntry,
    GoldenEntry,
    Manifest,
    ModelEntry,
    Provenance,
    TensorEntry,
    WeightsEntry,
    parse_manifest,
)
from scalenas_runtime.bundle.model_api import model_api_keys
from scalenas_runtime.bundle.reader import Bundle, EngineStatus
from scalenas_runtime.bundle.writer import BundleContents, ModelFile, write_bundle

__all__ = [
    "Bundle",
    "BundleContents",
    "CalibrationEntry",
    "EngineEntry",
    "EngineStatus",
    "FileEntry",
    "GoldenEntry",
    "Manifest",
    "ModelEntry",
    "ModelFile",
    "Provenance",
    "TensorEntry",
    "WeightsEntry",
    "build_engine",
    "model_api_keys",
    "parse_manifest",
    "place_of",
    "write_bundle",
]
