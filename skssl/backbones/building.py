"""Build encoders: from a name or any module to features, never class scores."""

from __future__ import annotations

import copy
import os
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from skssl.backbones.channels import adapt_convolution
from skssl.backbones.heads import SCORE_MODULES, check_unscored, remove_head
from skssl.backbones.networks import NAMES, SMALL, build_network
from skssl.backbones.outputs import Pooled, Selected, select
from skssl.backbones.stage_pool import StagePool
from skssl.backbones.vit import ViT
from skssl.backbones.weights import load_weights
from skssl.nn.distributed import is_main_process
from skssl.storage.files import first_line


def build_backbone(
    backbone: str | ViT | StagePool | nn.Module | Callable[[], nn.Module],
    shape: tuple[int, int, int],
    *,
    weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = None,
    verbose: int = 0,
) -> tuple[nn.Module, int]:
    """Build an encoder for images of a shape.

    Parameters
    ----------
    backbone : str, ViT, StagePool, torch.nn.Module or callable
        A name, a `ViT`, a `StagePool`, a module, which is copied with its weights, or a callable that returns a module.
        Names are "convnet", also with a multiple of all channels as in "convnet_2x"; "vit_micro", "vit_tiny",
        "vit_small" and "vit_base" (see `ViT`), those of torchvision's classification networks, such as "resnet18",
        SimCLR's ResNets "resnet50", "resnet101" and "resnet152" with "_2x", "_3x" or "_4x" for a multiple of all
        channels and "_sk" for selective kernels, such as "resnet152_3x_sk", those of timm's after "timm:", such as
        "timm:resnet26d", "audio_convnet" (see `AudioConvNet`) and "alexnet_bn". The latter is the AlexNet of RotNet and
        rotation feature decoupling: BatchNorm follows every layer, without dropout. The classifier is removed: by
        ``reset_classifier`` where the module has it, as timm's do, else it is the linear map or 1x1 convolution that
        the output comes from. A network that ends with ``nn.Identity()`` has no classifier. A final map is pooled.
    shape : tuple of int
        Channels, height and width of the images. If the network cannot read them, its first convolution is adapted to
        the channels: its kernels are repeated and scaled as in timm. torchvision's ResNets by name get a 3x3 stem
        without max-pooling where the longer side is at most 64 pixels. Their residual blocks start as the identity (a
        gain of 0 in the last BatchNorm), as in SimSiam, Barlow Twins and VICReg, but not in MoCo and SwAV.
    weights : str, path-like or mapping of str to Tensor, default=None
        Trained weights to start from, see `load_weights`.
    verbose : int, default=0
        1 prints which module was removed as the classifier, and which convolution was adapted.

    Returns
    -------
    encoder : torch.nn.Module
        The encoder, which maps images (n, c, h, w) to features (n, d), in training mode.
    dim : int
        The width of the features, d.

    Raises
    ------
    ValueError
        If the name is unknown, the network fails on images of this shape, its classifier or its features cannot be
        told, or no weights fit.
    TypeError
        If `backbone` is not a name, a module or a callable that returns a module.
    ImportError
        If a network of timm is named, and timm is not installed.

    Examples
    --------
    >>> from skssl.backbones import build_backbone
    >>> encoder, dim = build_backbone("resnet18", (1, 28, 28))
    >>> dim, encoder.conv1
    (512, Conv2d(1, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False))
    >>> import torchvision
    >>> encoder, dim = build_backbone(torchvision.models.squeezenet1_1(), (3, 64, 64), verbose=1)
    backbone SqueezeNet: 512 features, without its classifier (classifier.1, a Conv2d from 512 to 1000).
    """
    if isinstance(backbone, StagePool):
        pooled = backbone.build(build_backbone(backbone.backbone, shape, weights=weights, verbose=verbose)[0])
        with torch.no_grad():
            dim = pooled.eval()(torch.zeros(2, *shape)).shape[1]
        return pooled.train(), dim
    if isinstance(backbone, str):
        net = build_network(backbone, shape)
    elif isinstance(backbone, ViT):
        net = backbone.build(*shape[1:], small=SMALL)
    elif isinstance(backbone, nn.Module):
        net = copy.deepcopy(_unwrap(backbone))
    else:
        net = backbone() if callable(backbone) else backbone
    if not isinstance(net, nn.Module):
        raise TypeError(
            f"backbone must be a name ({NAMES}), a ViT, a StagePool, a torch.nn.Module or a callable that returns one. "
            f"Got {reprlib.repr(net)}."
        )
    net = _unwrap(net)
    label = f"backbone {backbone!r}" if isinstance(backbone, str) else f"backbone {type(net).__name__}"
    said: list[str] = []
    trusted = hasattr(net, "reset_classifier")  # timm's
    if trusted and net.num_classes:
        net.reset_classifier(0)  # type: ignore[operator]
        said.append("without its classifier")
    _drop_auxiliary(net)
    net.eval()
    try:
        _run_or_adapt(trace := Trace(net), shape, said)
    except Exception as error:  # whatever a network raises
        raise ValueError(
            f"{label} cannot read images of shape (channels, height, width) = {shape}: {first_line(error)}"
        ) from error
    try:
        features = select(trace.output)
        if not trusted and not trace.ends_with_identity:
            removed = remove_head(net, features, trace.images, [module for module, _ in trace.calls])
            if removed is not None:
                scores, features = features, select(trace.run(shape).output)
                check_unscored(features, trace.images)
                said.append(f"without its classifier ({removed} from {features.shape[1]} to {scores.shape[1]})")
    except Exception as error:
        reason = str(error) if type(error) is ValueError else first_line(error)
        raise ValueError(f"{label} cannot be used as an encoder: {reason}.") from error
    if weights is not None:
        load_weights(net, weights, verbose=verbose)
    if not isinstance(trace.output, Tensor):
        net = Selected(net)
    if features.ndim == 4:
        net, features = Pooled(net), features.mean((2, 3))
    if features.ndim != 2:
        raise ValueError(
            f"backbone must map images to features (n, d) or maps (n, d, h, w). Got shape {tuple(features.shape)} "
            f"from {label.removeprefix('backbone ')} for n = 2. Wrap it in a module that pools tokens or reshapes."
        )
    if verbose and said and is_main_process():
        print(f"{label}: {features.shape[1]} features, {', '.join(said)}.")
    return net.train(), features.shape[1]


def _unwrap(net: nn.Module) -> nn.Module:
    """Return the module within wrappers for several devices and for compiling."""
    while True:
        if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            net = net.module
        elif isinstance(compiled := getattr(net, "_orig_mod", None), nn.Module):
            net = compiled
        else:
            return net


def _drop_auxiliary(net: nn.Module) -> None:
    """Remove the auxiliary classifiers of torchvision's GoogLeNet and Inception, which are outputs in training only."""
    if getattr(net, "aux_logits", None) is True:
        net.aux_logits = False  # type: ignore[assignment]
        for name in ("aux1", "aux2", "AuxLogits"):
            if hasattr(net, name):
                setattr(net, name, None)


WATCHED = nn.Identity, *SCORE_MODULES  # modules without parameters that matter after the last one with parameters


class Trace:
    """One pass of two black images through a network in evaluation mode, with gradients.

    Parameters
    ----------
    net : torch.nn.Module
        The network.

    Attributes
    ----------
    images : Tensor
        The images, a leaf of autograd's graph.
    output : object
        What the network returned.
    calls : list of (torch.nn.Module, int or None)
        The modules with parameters and those of `WATCHED` in the order in which they were called, with the number of
        channels that they were given. After a failure, the last one failed.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.calls: list[tuple[nn.Module, int | None]] = []
        self.images = self.output = torch.zeros(())

    def run(self, shape: tuple[int, int, int]) -> Self:
        """Encode images of a shape."""
        self.calls.clear()
        hooked = [module for module in self.net.modules() if module._parameters or isinstance(module, WATCHED)]
        hooks = [module.register_forward_pre_hook(self._note) for module in hooked]
        frozen = [parameter for parameter in self.net.parameters() if not parameter.requires_grad]
        frozen = [parameter for parameter in frozen if parameter.is_floating_point()]
        weight = next(self.net.parameters(), torch.zeros(()))
        try:
            with torch.enable_grad():
                for parameter in frozen:
                    parameter.requires_grad_(True)
                self.images = torch.zeros(2, *shape, device=weight.device, requires_grad=True)
                self.output = self.net(self.images.clone())  # which may change them in place, unlike a leaf
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for hook in hooks:
                hook.remove()
        return self

    def _note(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        shaped = inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4
        self.calls.append((module, inputs[0].shape[1] if shaped else None))

    @property
    def ends_with_identity(self) -> bool:
        """Whether an identity is called after all modules with parameters."""
        return bool(self.calls) and isinstance(self.calls[-1][0], nn.Identity)

    def misfit(self) -> tuple[nn.Conv2d, int] | None:
        """Return the first convolution and its input's channels, if the pass failed there because of them."""
        convolutions = [call for call in self.calls if isinstance(call[0], nn.Conv2d)]
        if len(convolutions) == 1 and self.calls[-1] is convolutions[0]:
            convolution, channels = convolutions[0]
            if isinstance(convolution, nn.Conv2d) and channels and channels != convolution.in_channels:
                return convolution, channels
        return None


def _run_or_adapt(trace: Trace, shape: tuple[int, int, int], said: list[str]) -> None:
    """Run a network on images; where it fails, set its image size, or adapt its first convolution, and retry."""
    resized = False
    while True:
        try:
            trace.run(shape)
            return
        except Exception:  # whatever a network raises
            misfit = trace.misfit()
            if misfit is not None and misfit[0].groups == 1:
                name = next(name for name, module in trace.net.named_modules() if module is misfit[0])
                said.append(f"its convolution {name} for {misfit[1]} instead of {misfit[0].in_channels} channels")
                adapt_convolution(*misfit)
            elif hasattr(trace.net, "set_input_size") and not resized:
                trace.net.set_input_size(img_size=shape[1:])  # type: ignore[operator]  # timm's
                resized = True
            else:
                raise
