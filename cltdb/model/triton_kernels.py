"""Triton kernels over active (token, feature) pairs: what plain torch does slowly, or not deterministically, on CUDA.

`weighted_rows` and `pair_dots` are the two primitives of `cltdb/model/sparse.py`; `decoder_gradients` is both in one pass for the
backward of decoding, `bag_sums` the gradient of biases and thresholds, `select_above` finds the pairs.

A bag is a token with its features or a feature with its tokens: consecutive pairs, `offsets[bag]` to the next bag's offset. One
program sums one block of columns of one bag, in float32, in the order of the pairs, and the blocks of one bag are far apart in the
grid, so that the programs that run together read the same columns of all rows, which stay in the L2 cache. A bag of more than SEGMENT
pairs (a feature that fires on every token) is cut where SEGMENT divides the pair's number: each piece writes a partial sum, and a
second kernel adds these in order. A piece can meet two long bags at most, the one that goes on from the piece before and the one that
goes on into the next, so its place needs no table, no atomics and no transfer from the device to the host. The same inputs give the same bytes.

Block sizes follow from width and number type; nothing is timed at run time, so that no run depends on the noise of another.
Addresses are 64-bit: tables may have more than 2^31 elements. Fewer than 2^31 pairs.
With TRITON_INTERPRET=1, set before triton is imported, everything runs on CPU tensors in Triton's interpreter; its older versions
cannot count a `for` over tensors with numpy 2.4 and later, hence `while`.
"""

import contextlib

import torch
import triton
import triton.language as tl

NUMBER_TYPES = (torch.float32, torch.bfloat16, torch.float16)  # float64 would be summed in float32
SEGMENT = 256  # pairs that one program sums at most
PAIRS = 2  # pairs read at once
BLOCK_BYTES = 1024  # of a row that one program reads: 24,576 such blocks are half of the L2 cache of an H100 or H200
VARYING = ["n_pairs", "n_bags"]  # differ from step to step; one compiled kernel serves all of their values
SELECT_BLOCK = 4096  # pre-activations read by one program


@triton.jit
def _bounds(offsets, bag, n_bags, n_pairs):
    """Where a bag's pairs begin and end."""
    start = tl.load(offsets + bag).to(tl.int32)
    end = tl.load(offsets + bag + 1, mask=bag + 1 < n_bags, other=n_pairs).to(tl.int32)
    return start, end


@triton.jit
def _bag_of(offsets, pair, n_bags):
    """The bag that holds a pair: the last whose offset is not beyond it."""
    low = 0
    high = n_bags
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(offsets + middle) <= pair:
            low = middle
        else:
            high = middle
    return low


@triton.jit(do_not_specialize=VARYING)
def _weighted_rows_kernel(
    table,
    table_stride,
    row,
    weight,
    offsets,
    own,
    own_stride,
    own_weight,
    out,
    partial,
    dots,
    n_bags,
    n_pairs,
    width,
    SEGMENT: tl.constexpr,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DOTS: tl.constexpr,
    OWN_WEIGHT: tl.constexpr,
):
    """Programs below n_bags: the short bags. Then two for each piece of SEGMENT pairs: the long bag that comes into it, and the long
    bag that begins in it. own [n_bags, width]: the rows whose dot products with the bag's rows are wanted (DOTS)."""
    program = tl.program_id(0)
    block = tl.program_id(1)
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    is_bag = program < n_bags
    piece = (program - n_bags) // 2
    begins = (program - n_bags) % 2
    piece_start = piece * SEGMENT
    piece_end = tl.minimum(piece_start + SEGMENT, n_pairs)
    if is_bag:
        bag = program
    else:
        bag = _bag_of(offsets, tl.where(begins == 1, piece_end - 1, piece_start), n_bags)
    start, end = _bounds(offsets, bag, n_bags, n_pairs)
    is_long = end - start > SEGMENT
    if is_bag:
        wanted = is_long == 0
    else:
        wanted = is_long & ((start >= piece_start) == (begins == 1))
        start = tl.maximum(start, piece_start)
        end = tl.minimum(end, piece_end)
    if wanted:
        total = tl.zeros([COLUMNS], dtype=tl.float32)
        if DOTS:
            is_read = inside & (OWN_WEIGHT | (end > start))
            own_row = tl.load(own + bag.to(tl.int64) * own_stride + column, mask=is_read, other=0.0).to(tl.float32)
            if OWN_WEIGHT:
                if is_bag or begins == 1:
                    total += tl.load(own_weight + bag).to(tl.float32) * own_row
        base = start
        while base < end:
            pair = base + tl.arange(0, PAIRS)
            is_pair = pair < end
            source = tl.load(row + pair, mask=is_pair, other=0).to(tl.int64)
            scale = tl.load(weight + pair, mask=is_pair, other=0.0).to(tl.float32)
            place = table + source[:, None] * table_stride + column[None, :]
            values = tl.load(place, mask=is_pair[:, None] & inside[None, :], other=0.0).to(tl.float32)
            total += tl.sum(values * scale[:, None], axis=0)
            if DOTS:
                dot = tl.sum(values * own_row[None, :], axis=1)
                tl.store(dots + block.to(tl.int64) * n_pairs + pair, dot, mask=is_pair)
            base += PAIRS
        if is_bag:
            tl.store(out + bag.to(tl.int64) * width + column, total.to(out.dtype.element_ty), mask=inside)
        else:
            tl.store(partial + (piece * 2 + begins).to(tl.int64) * width + column, total, mask=inside)


@triton.jit(do_not_specialize=VARYING)
def _add_pieces_kernel(
    partial,
    offsets,
    out,
    n_bags,
    n_pairs,
    width,
    SEGMENT: tl.constexpr,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program for each piece: sums the long bag that begins in it, if one does."""
    piece = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    last_pair = tl.minimum((piece + 1) * SEGMENT, n_pairs) - 1
    bag = _bag_of(offsets, last_pair, n_bags)
    start, end = _bounds(offsets, bag, n_bags, n_pairs)
    if (end - start > SEGMENT) & (start >= piece * SEGMENT):
        total = tl.load(partial + (piece * 2 + 1).to(tl.int64) * width + column, mask=inside, other=0.0)
        last_piece = (end - 1) // SEGMENT
        base = piece + 1
        while base <= last_piece:
            others = base + tl.arange(0, PAIRS)
            place = partial + (others * 2).to(tl.int64)[:, None] * width + column[None, :]
            total += tl.sum(tl.load(place, mask=(others <= last_piece)[:, None] & inside[None, :], other=0.0), axis=0)
            base += PAIRS
        tl.store(out + bag.to(tl.int64) * width + column, total.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=VARYING[:1])
def _pair_dots_kernel(
    left,
    left_stride,
    left_row,
    right,
    right_stride,
    right_row,
    out,
    n_pairs,
    width,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    is_pair = pair < n_pairs
    left_place = left + (tl.load(left_row + pair, mask=is_pair, other=0).to(tl.int64) * left_stride)[:, None]
    right_place = right + (tl.load(right_row + pair, mask=is_pair, other=0).to(tl.int64) * right_stride)[:, None]
    total = tl.zeros([PAIRS, COLUMNS], dtype=tl.float32)
    base = 0
    while base < width:
        column = base + tl.arange(0, COLUMNS)
        wanted = is_pair[:, None] & (column < width)[None, :]
        a = tl.load(left_place + column[None, :], mask=wanted, other=0.0).to(tl.float32)
        b = tl.load(right_place + column[None, :], mask=wanted, other=0.0).to(tl.float32)
        total += a * b
        base += COLUMNS
    tl.store(out + pair, tl.sum(total, axis=1), mask=is_pair)


@triton.jit(do_not_specialize=VARYING)
def _bag_sums_kernel(value, offsets, out, n_bags, n_pairs, PAIRS: tl.constexpr):
    bag = tl.program_id(0)
    start, end = _bounds(offsets, bag, n_bags, n_pairs)
    total = tl.zeros([PAIRS], dtype=tl.float32)
    base = start
    while base < end:
        pair = base + tl.arange(0, PAIRS)
        total += tl.load(value + pair, mask=pair < end, other=0.0).to(tl.float32)
        base += PAIRS
    tl.store(out + bag, tl.sum(total, axis=0))


@triton.jit
def _n_set(bits):
    """How many bits of each int32 are set, counted in parallel."""
    bits = bits - ((bits >> 1) & 0x55555555)
    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F
    bits = bits + (bits >> 8)
    return (bits + (bits >> 16)) & 0x3F


@triton.jit
def _mark_above_kernel(
    h,
    h_stride,
    bias,
    cut,
    mask,
    count,
    n_features,
    n_blocks,
    row_words,
    BLOCK: tl.constexpr,
    BIAS: tl.constexpr,
    PER_FEATURE: tl.constexpr,
):
    """One bit for each pre-activation, 32 neighbours to the word, and how many are set in each block of a token's features."""
    program = tl.program_id(0)
    token = (program // n_blocks).to(tl.int64)
    word = (program % n_blocks) * (BLOCK // 32) + tl.arange(0, BLOCK // 32)
    bit = tl.arange(0, 32)
    feature = word[:, None] * 32 + bit[None, :]
    inside = feature < n_features
    value = tl.load(h + token * h_stride + feature, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        value += tl.load(bias + feature, mask=inside, other=0.0).to(tl.float32)
    if PER_FEATURE:
        limit = tl.load(cut + feature, mask=inside, other=0.0).to(tl.float32)
    else:
        limit = tl.load(cut).to(tl.float32)
    above = ((value > limit) & inside).to(tl.int32)
    tl.store(mask + token * row_words + word, tl.sum(above << bit[None, :], axis=1), mask=word < row_words)
    tl.store(count + program, tl.sum(tl.sum(above, axis=1), axis=0))


@triton.jit
def _list_marked_kernel(mask, end, token_out, feature_out, n_blocks, row_words, BLOCK: tl.constexpr):
    """Writes each marked pair to its place, of all words one bit at a time: few are set. end: for each block the number of marked pairs
    up to and with it."""
    program = tl.program_id(0)
    token = (program // n_blocks).to(tl.int64)
    word = (program % n_blocks) * (BLOCK // 32) + tl.arange(0, BLOCK // 32)
    bits = tl.load(mask + token * row_words + word, mask=word < row_words, other=0)
    in_word = _n_set(bits)
    place = tl.load(end + program) - tl.sum(in_word, axis=0) + tl.cumsum(in_word, axis=0) - in_word
    left = tl.max(in_word, axis=0)
    while left > 0:
        feature = word * 32 + _n_set((bits & -bits) - 1)
        tl.store(token_out + place, tl.zeros_like(place) + token, mask=bits != 0)
        tl.store(feature_out + place, feature.to(tl.int64), mask=bits != 0)
        bits = bits & (bits - 1)
        place += 1
        left -= 1


def weighted_rows(table, row, weight, offsets, *, out_dtype=None):
    """[n_bags, width]: per bag the sum of weight * table[row] over its pairs; empty bags give zeros.

    table [n_rows, width], its rows contiguous in themselves; row, weight [n_pairs]; offsets [n_bags], ascending. out_dtype: the
    table's unless told.
    """
    return _weighted_rows(table, row, weight, offsets, out_dtype=out_dtype)[0]


def decoder_gradients(gradient, token, value, offsets, rows, *, row_weight=None, out_dtype=None):
    """(row gradients [n_bags, width], value gradients [n_pairs] float32) of the sums of value * rows[feature] over each token's pairs.

    The pairs are sorted by feature: a bag is a feature with its tokens. gradient [n_tokens, width] of those sums, rows [n_bags, width];
    row_weight [n_bags] adds row_weight * rows to the row gradients (what a penalty on the rows' norms needs). Each row of `gradient` and
    of `rows` is read once for both results.
    """
    total, dots = _weighted_rows(gradient, token, value, offsets, own=rows, own_weight=row_weight, out_dtype=out_dtype)
    return total, dots.sum(0)


def _weighted_rows(table, row, weight, offsets, *, own=None, own_weight=None, out_dtype):
    n_pairs, n_bags, width = len(row), len(offsets), table.shape[1]
    assert table.dtype in NUMBER_TYPES and (table.stride(1) == 1 or width == 1)
    assert n_pairs == len(weight) and n_pairs < 2**31
    assert own is None or (own.shape == (n_bags, width) and (own.stride(1) == 1 or width == 1))
    columns, warps = _blocks(width, table.element_size())
    n_blocks, n_pieces = triton.cdiv(width, columns), triton.cdiv(n_pairs, SEGMENT) if n_pairs > SEGMENT else 0
    out = table.new_empty(n_bags, width, dtype=out_dtype or table.dtype)
    partial = table.new_empty(2 * n_pieces, width, dtype=torch.float32)
    dots = table.new_empty(n_blocks if own is not None else 0, n_pairs, dtype=torch.float32)
    if out.numel() == 0:
        return out, dots
    row, weight, offsets = row.contiguous(), weight.contiguous(), offsets.contiguous()
    common = dict(SEGMENT=SEGMENT, PAIRS=PAIRS, COLUMNS=columns, num_warps=warps)
    with _on(table):
        _weighted_rows_kernel[(n_bags + 2 * n_pieces, n_blocks)](
            table,
            table.stride(0),
            row,
            weight,
            offsets,
            table if own is None else own,
            0 if own is None else own.stride(0),
            weight if own_weight is None else own_weight.contiguous(),
            out,
            partial,
            dots,
            n_bags,
            n_pairs,
            width,
            DOTS=own is not None,
            OWN_WEIGHT=own_weight is not None,
            **common,
        )
        if n_pieces:
            _add_pieces_kernel[(n_pieces, n_blocks)](partial, offsets, out, n_bags, n_pairs, width, **common)
    return out, dots


def pair_dots(left, left_row, right, right_row):
    """[n_pairs] float32: left[left_row] . right[right_row] of each pair.

    left [n_left, width], right [n_right, width], rows contiguous in themselves; left_row, right_row [n_pairs]. Pairs with equal rows in
    a run (sorted by either) read these from the cache.
    """
    n_pairs, width = len(left_row), left.shape[1]
    assert left.dtype in NUMBER_TYPES and right.dtype in NUMBER_TYPES
    assert width == right.shape[1] and (width == 1 or left.stride(1) == right.stride(1) == 1)
    assert n_pairs == len(right_row) and n_pairs < 2**31
    out = left.new_empty(n_pairs, dtype=torch.float32)
    columns, warps = _blocks(width, left.element_size())
    if n_pairs:
        with _on(left):
            _pair_dots_kernel[(triton.cdiv(n_pairs, PAIRS),)](
                left,
                left.stride(0),
                left_row.contiguous(),
                right,
                right.stride(0),
                right_row.contiguous(),
                out,
                n_pairs,
                width,
                PAIRS=PAIRS,
                COLUMNS=columns,
                num_warps=warps,
            )
    return out


def bag_sums(value, offsets):
    """[n_bags] float32: the sum of value [n_pairs] over each bag's pairs; offsets [n_bags], ascending."""
    out = value.new_empty(len(offsets), dtype=torch.float32)
    if len(offsets):
        with _on(value):
            _bag_sums_kernel[(len(offsets),)](
                value.contiguous(), offsets.contiguous(), out, len(offsets), len(value), PAIRS=128, num_warps=1
            )
    return out


def select_above(h, cut, *, bias=None):
    """(token, feature), both [n_pairs] int64, of the pre-activations h + bias above cut, by token and then feature.

    h [n_tokens, n_features], bias [n_features]; cut: a number, a tensor of one element, or one per feature [n_features]; added and
    compared in float32. h is read once; the second pass reads one bit for each of its elements. The host waits once, for the number
    of pairs.
    """
    n_tokens, n_features = h.shape
    cut = torch.as_tensor(cut, device=h.device).detach()
    assert cut.numel() in (1, n_features) and (h.stride(1) == 1 or n_features == 1)
    if h.numel() == 0:
        return torch.empty(2, 0, dtype=torch.int64, device=h.device).unbind()
    block = min(SELECT_BLOCK, max(32, triton.next_power_of_2(n_features)))
    n_blocks, row_words = triton.cdiv(n_features, block), triton.cdiv(n_features, 32)
    mask = torch.empty(n_tokens, row_words, dtype=torch.int32, device=h.device)
    count = torch.empty(n_tokens * n_blocks, dtype=torch.int32, device=h.device)
    with _on(h):
        _mark_above_kernel[(len(count),)](
            h,
            h.stride(0),
            cut if bias is None else bias.detach().contiguous(),
            cut.contiguous(),
            mask,
            count,
            n_features,
            n_blocks,
            row_words,
            BLOCK=block,
            BIAS=bias is not None,
            PER_FEATURE=cut.numel() > 1,
            num_warps=4,
        )
        end = count.cumsum(0, dtype=torch.int64)
        token, feature = torch.empty(2, int(end[-1]), dtype=torch.int64, device=h.device)
        _list_marked_kernel[(len(count),)](mask, end, token, feature, n_blocks, row_words, BLOCK=block, num_warps=1)
    return token, feature


def _blocks(width, element_bytes):
    """(columns, warps) of one program: the widest block of which at most an eighth of all columns is padding, and a warp for every 32
    bytes of a row that each of its threads reads at once. Of the sizes tried on an H200 these were the fastest."""
    columns = BLOCK_BYTES // element_bytes
    while columns > 32 and triton.cdiv(width, columns) * columns > 1.125 * width:
        columns //= 2
    return columns, max(1, columns * element_bytes // 1024)


def _on(tensor):
    """The tensor's device as the current one: Triton launches where the current device is."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
