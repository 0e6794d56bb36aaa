"""Which (token, feature) pairs are active, and JumpReLU with its straight-through gradient for the threshold."""

import torch


class JumpReLU(torch.autograd.Function):
    """h where h > threshold, else 0, elementwise on h and threshold of one shape.

    Gradient: d/dh = 1[h > threshold]; d/dthreshold = -(threshold / bandwidth) 1[|h - threshold| < bandwidth / 2].
    Source: Rajamanoharan et al. 2024, "Jumping Ahead" (arXiv 2407.14435), equation 11, rectangle kernel.
    """

    @staticmethod
    def forward(ctx, h, threshold, bandwidth):
        ctx.save_for_backward(h, threshold)
        ctx.bandwidth = bandwidth
        return h * (h > threshold)

    @staticmethod
    def backward(ctx, gradient):
        h, threshold = ctx.saved_tensors
        in_window = (h - threshold).abs() < ctx.bandwidth / 2
        return gradient * (h > threshold), -gradient * threshold / ctx.bandwidth * in_window, None


def batch_top_k(h, k):
    """Mask [token, feature] of the k * n_tokens largest positive pre-activations of the batch.

    Source: Bussmann et al. 2024, "BatchTopK Sparse Autoencoders" (arXiv 2412.06410), section 3.
    """
    n_active = min(h.numel(), round(k * h.shape[0]))
    smallest = h.detach().flatten().topk(n_active, sorted=False).values.min()
    return (h >= smallest) & (h > 0)
