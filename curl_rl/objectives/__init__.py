"""Self-supervised methods, one per file; each serves reinforcement learning and vision through the same interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.objectives import registry
from curl_rl.objectives.amdim import AMDIM, AMDIMConfig
from curl_rl.objectives.barlow import BarlowConfig, BarlowTwins
from curl_rl.objectives.base import BatchInfo, DataSpec, Modality, Need, Objective, Result, ViewSpec
from curl_rl.objectives.byol import BYOL, BYOLConfig
from curl_rl.objectives.clip import CLIP, CLIPConfig
from curl_rl.objectives.cmc import CMC, CMCConfig
from curl_rl.objectives.composite import Composite
from curl_rl.objectives.cpc import CPC, CPCConfig
from curl_rl.objectives.curl import Curl, CurlConfig
from curl_rl.objectives.deepcluster import DeepCluster, DeepClusterConfig
from curl_rl.objectives.dim import DIM, DIMConfig
from curl_rl.objectives.encode import encode_views
from curl_rl.objectives.instdisc import InstDisc, InstDiscConfig
from curl_rl.objectives.is_bert import ISBERT, ISBERTConfig
from curl_rl.objectives.method import Method
from curl_rl.objectives.moco import MoCo, MoCoConfig
from curl_rl.objectives.n_pair import NPair, NPairConfig
from curl_rl.objectives.nnclr import NNCLR, NNCLRConfig
from curl_rl.objectives.open_world import OpenWorldClusters, OpenWorldConfig
from curl_rl.objectives.pair_margin import PairMargin, PairMarginConfig
from curl_rl.objectives.pcl import PCL, PCLConfig
from curl_rl.objectives.quick_thoughts import QuickThoughts, QuickThoughtsConfig
from curl_rl.objectives.registry import METHODS, ObjectiveUser, build_objective, register
from curl_rl.objectives.simclr import SimCLR, SimCLRConfig
from curl_rl.objectives.simcse import SimCSE, SimCSEConfig
from curl_rl.objectives.simsiam import SimSiam, SimSiamConfig
from curl_rl.objectives.supcon import SupCon, SupConConfig
from curl_rl.objectives.swav import SwAV, SwAVConfig
from curl_rl.objectives.triplet import Triplet, TripletConfig

if TYPE_CHECKING:
    from curl_rl.objectives.registry import MethodName, ObjectiveConfigs, ObjectiveName


def __getattr__(name: str) -> Any:
    """Looks up the types that :func:`register` rebuilds, so that callers always get the latest."""
    if name in ("MethodName", "ObjectiveConfigs", "ObjectiveName"):
        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AMDIM",
    "BYOL",
    "CLIP",
    "CMC",
    "CPC",
    "DIM",
    "ISBERT",
    "METHODS",
    "NNCLR",
    "PCL",
    "AMDIMConfig",
    "BYOLConfig",
    "BarlowConfig",
    "BarlowTwins",
    "BatchInfo",
    "CLIPConfig",
    "CMCConfig",
    "CPCConfig",
    "Composite",
    "Curl",
    "CurlConfig",
    "DIMConfig",
    "DataSpec",
    "DeepCluster",
    "DeepClusterConfig",
    "FeatureSpec",
    "Features",
    "ISBERTConfig",
    "InstDisc",
    "InstDiscConfig",
    "Method",
    "MethodName",
    "MoCo",
    "MoCoConfig",
    "Modality",
    "NNCLRConfig",
    "NPair",
    "NPairConfig",
    "Need",
    "Objective",
    "ObjectiveConfigs",
    "ObjectiveName",
    "ObjectiveUser",
    "OpenWorldClusters",
    "OpenWorldConfig",
    "PCLConfig",
    "PairMargin",
    "PairMarginConfig",
    "QuickThoughts",
    "QuickThoughtsConfig",
    "Result",
    "SimCLR",
    "SimCLRConfig",
    "SimCSE",
    "SimCSEConfig",
    "SimSiam",
    "SimSiamConfig",
    "SupCon",
    "SupConConfig",
    "SwAV",
    "SwAVConfig",
    "Triplet",
    "TripletConfig",
    "ViewSpec",
    "build_objective",
    "encode_views",
    "register",
]
