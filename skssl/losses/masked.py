"""Losses of masked images: pixels, features or tokens of what was hidden."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skssl.losses.precision import full_precision


@full_precision
def mae(predicted: Tensor, pixels: Tensor, normalize: bool = True) -> Tensor:
    r"""Compute MAE's loss: the mean squared error of the pixels of masked patches.

    Parameters
    ----------
    predicted : Tensor of shape (n, k, p)
        Predictions of the p values of k patches of each image.
    pixels : Tensor of shape (n, k, p)
        The values.
    normalize : bool, default=True
        Whether the target is :math:`(x - \mu) / \sqrt{\sigma^2 + 10^{-6}}`, with the mean and the unbiased variance of
        each patch.

    Returns
    -------
    scalar Tensor
        The loss.

    References
    ----------
    He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, section 3.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import mae
    >>> pixels = torch.tensor([[[1.0, 3.0]]])
    >>> mae(pixels, pixels, normalize=False).item(), round(mae(torch.zeros(1, 1, 2), pixels).item(), 3)
    (0.0, 0.5)
    """
    if normalize:
        variance, mean = torch.var_mean(pixels, 2, keepdim=True)
        pixels = (pixels - mean) / (variance + 1e-6).sqrt()
    return (predicted - pixels).square().mean()


@full_precision
def simmim(predicted: Tensor, images: Tensor, masked: Tensor) -> Tensor:
    """Compute SimMIM's loss: the mean absolute error of masked pixels.

    Parameters
    ----------
    predicted, images : Tensor of shape (n, c, h, w)
        Predictions, and the normalised images.
    masked : bool Tensor of shape (n, h, w)
        True at masked pixels, of which each image has one or more.

    Returns
    -------
    scalar Tensor
        The loss, a mean over images. The authors' code divides by the number of masked pixels of the batch, which is
        the same if all images have as many.

    References
    ----------
    Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022, section 3.4.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import simmim
    >>> images = torch.tensor([[[[1.0, 5.0]]]])
    >>> simmim(torch.zeros(1, 1, 1, 2), images, torch.tensor([[[True, False]]]))
    tensor(1.)
    """
    errors = (predicted - images).abs().mean(1) * masked  # (n, h, w)
    return (errors.sum((1, 2)) / masked.sum((1, 2))).mean()


@full_precision
def ijepa(predicted: Tensor, targets: Tensor) -> Tensor:
    r"""Compute I-JEPA's loss: the smooth L1 distance.

    An error e costs :math:`e^2 / 2` if it is below 1, and :math:`|e| - 1/2` otherwise.

    Parameters
    ----------
    predicted, targets : Tensor of shape (..., d)
        Predicted tokens, and those of the momentum copy, each normalised by a LayerNorm without parameters.

    Returns
    -------
    scalar Tensor
        The mean over tokens and their values.

    References
    ----------
    Assran et al., CVPR 2023. Equation 1 of the paper has the squared distance; this is the loss of the authors' code.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import ijepa
    >>> ijepa(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(1.)
    """
    return F.smooth_l1_loss(predicted, targets)


@full_precision
def ibot(student: Tensor, targets: Tensor, n_masked: Tensor, n_views: int, temperature: float = 0.1) -> Tensor:
    r"""iBOT: cross-entropy of the student's distributions at masked patches with the teacher's, which sees the patches.

    .. math:: -\frac{1}{V} \sum_i \frac{1}{m_i} q_i \cdot \log \mathrm{softmax}\Bigl(\frac{s_i}{t}\Bigr),

    the mean over the masked patches of each view, then over the V views. A view without masked patches counts as 0.

    Parameters
    ----------
    student : Tensor of shape (m, k)
        The student's scores of k prototypes at the masked patches of all views.
    targets : Tensor of shape (m, k)
        q, the teacher's probabilities at the same patches; detached.
    n_masked : int64 Tensor of shape (m,)
        Number of masked patches of the view in which each patch lies.
    n_views : int
        V, the number of views, those without masked patches included.
    temperature : float, default=0.1
        t, the temperature of the student's softmax.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, ICLR 2022. The means are those of the authors'
    code; the paper has a sum over patches.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import ibot
    >>> scores, targets = torch.zeros(2, 4), torch.eye(4)[:2]  # two of the patches of one of two views
    >>> round(ibot(scores, targets, n_masked=torch.tensor([2, 2]), n_views=2).item(), 4)  # log(4) / 2
    0.6931
    """
    cross_entropy = -(targets.detach() * (student / temperature).log_softmax(1)).sum(1)
    return (cross_entropy / n_masked).sum() / n_views
