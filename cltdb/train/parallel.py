"""Which process holds what when several train one dictionary: each rank has a part of every batch's tokens and a slice of the features.

Rank = data_rank * n_shards + shard. The ranks of one shard group see the same tokens and own different features; the ranks of one
data group own the same features and see different tokens. A process alone is the case of one of each, without any communication.
"""

import torch
from torch import distributed


class Parallel:
    """rank of world_size processes; n_shards of them share the features. Must be made by all ranks at once."""

    def __init__(self, *, rank=0, world_size=1, n_shards=1):
        self.rank, self.world_size, self.n_shards = rank, world_size, n_shards
        self.n_data = world_size // n_shards
        self.data_rank, self.shard = divmod(rank, n_shards)
        self.shard_group = self.data_group = None
        if world_size > 1:
            for data_rank in range(self.n_data):
                group = distributed.new_group([data_rank * n_shards + shard for shard in range(n_shards)])
                self.shard_group = group if data_rank == self.data_rank else self.shard_group
            for shard in range(n_shards):
                group = distributed.new_group([data_rank * n_shards + shard for data_rank in range(self.n_data)])
                self.data_group = group if shard == self.shard else self.data_group

    def features(self, n_features):
        """The slice of the features that this rank owns."""
        width = n_features // self.n_shards
        return slice(self.shard * width, (self.shard + 1) * width)

    def sum_over_shards(self, tensor):
        """The sum over the ranks that share the features. Its gradient passes unchanged to each rank, because all compute the same loss."""
        return _SumOverShards.apply(tensor, self.shard_group) if self.n_shards > 1 else tensor

    def gather(self, tensor):
        """[world_size, ...]: the tensors, of one shape, of all ranks."""
        return _gather(tensor, None, self.world_size)

    def gather_shards(self, tensor):
        """[n_shards, ...]: the tensors, of one shape, of the ranks that own the other features."""
        return _gather(tensor, self.shard_group, self.n_shards)

    def data_sum(self, tensor):
        """The sum over the ranks that see other tokens."""
        if self.n_data > 1:
            tensor = tensor.clone()
            distributed.all_reduce(tensor, group=self.data_group)
        return tensor

    def collect_features(self, tensor):
        """On rank 0 the tensors of all shards, joined along the features; other ranks must not use the result."""
        if self.n_shards == 1 or self.data_rank:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.n_shards)] if self.rank == 0 else None
        distributed.gather(tensor.contiguous(), parts, dst=0, group=self.shard_group)
        return torch.cat(parts) if parts else tensor

    # What DeepSpeed asks of a "model parallel unit" (its `mpu` argument).

    def get_model_parallel_rank(self):
        return self.shard

    def get_model_parallel_world_size(self):
        return self.n_shards

    def get_model_parallel_group(self):
        return self.shard_group

    def get_data_parallel_rank(self):
        return self.data_rank

    def get_data_parallel_world_size(self):
        return self.n_data

    def get_data_parallel_group(self):
        return self.data_group


class _SumOverShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, group):
        total = tensor.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def _gather(tensor, group, size):
    if size == 1:
        return tensor[None]
    parts = [torch.empty_like(tensor) for _ in range(size)]
    distributed.all_gather(parts, tensor.contiguous(), group=group)
    return torch.stack(parts)
