"""Losses of the papers, as pure functions of tensors.

Embeddings are rows. A loss normalises them where its formula has a cosine, and returns a differentiable scalar. It is
computed in float32 (or float64), whatever the precision of the networks.
"""

from skssl.losses.contrastive import (
    contrastive_loss,
    correspondence,
    dcl,
    dense_info_nce,
    info_nce,
    nce,
    nt_xent,
    proto_nce,
    sup_con,
    triplet_loss,
)
from skssl.losses.masked import ibot, ijepa, mae, simmim
from skssl.losses.prediction import averaged_targets, byol_loss, guided_stop_gradient, negative_cosine
from skssl.losses.prototypes import dino, msn_terms, prototype_scores, ressl, sinkhorn, swapped_prediction
from skssl.losses.statistics import (
    barlow_twins,
    koleo,
    mmcr,
    nuclear_norm,
    sigreg,
    tico,
    tico_covariance,
    vicreg,
    vicreg_terms,
    vicregl_terms,
    w_mse,
    whiten,
)

__all__ = [
    "averaged_targets",
    "barlow_twins",
    "byol_loss",
    "contrastive_loss",
    "correspondence",
    "dcl",
    "dense_info_nce",
    "dino",
    "guided_stop_gradient",
    "ibot",
    "ijepa",
    "info_nce",
    "koleo",
    "mae",
    "mmcr",
    "msn_terms",
    "nce",
    "negative_cosine",
    "nt_xent",
    "nuclear_norm",
    "proto_nce",
    "prototype_scores",
    "ressl",
    "sigreg",
    "simmim",
    "sinkhorn",
    "sup_con",
    "swapped_prediction",
    "tico",
    "tico_covariance",
    "triplet_loss",
    "vicreg",
    "vicreg_terms",
    "vicregl_terms",
    "w_mse",
    "whiten",
]
