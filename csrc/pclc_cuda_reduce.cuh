// From the parts that threads have to the whole: over lanes, over the warps of a block, over the
// blocks of a cluster, and over a launch. Everything is added in one order, so that every run gives
// the same bits.

#pragma once

#include "pclc_cuda_writer.cuh"
#include "pclc_partial.h"

namespace pclc::device {

constexpr int kMaxWarps = 32;
constexpr int kSummingThreads = 128;  // every block has so many: sums do not depend on its size
constexpr int kSummingWarps = kSummingThreads / kWarp;

// At the front of a block's shared memory. Rows take turns with the two sets of slots, so that a
// warp may write its part of one row while another still reads those of the last.
template <typename T>
struct alignas(16) Shared {
  Partial<T> partial[2][kMaxWarps];
  Hinges<T> hinges[2][kMaxWarps];
  Partial<T> block_partial;  // for the other blocks of a cluster
  Hinges<T> block_hinges;
  double sums[kSummingWarps];
  double total, loss_sum;  // of the first thread, where registers are few
  bool is_last;
};

template <typename T>
PCLC_DEVICE Shared<T>& shared_front() {
  return *static_cast<Shared<T>*>(shared_memory());
}

template <int kLanes>
PCLC_DEVICE float largest_of_lanes(float mine) {
  if constexpr (kLanes == kWarp) {  // as integers of the same order: one instruction
    const auto ordered = [](int32_t bits) { return bits ^ ((bits >> 31) & INT32_MAX); };
    const int32_t bits = most_of_lanes(ordered(static_cast<int32_t>(bits_of(mine))));
    return float_of(static_cast<uint32_t>(ordered(bits)));
  } else {
#pragma unroll
    for (int mask = kLanes / 2; mask > 0; mask /= 2) mine = max_of(mine, shuffle_xor(mine, mask));
    return mine;
  }
}
template <int kLanes>
PCLC_DEVICE double largest_of_lanes(double mine) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) mine = max_of(mine, shuffle_xor(mine, mask));
  return mine;
}

template <int kLanes>
PCLC_DEVICE int32_t lowest_of_lanes(int32_t mine) {
  if constexpr (kLanes == kWarp) {
    return least_of_lanes(mine);
  } else {
#pragma unroll
    for (int mask = kLanes / 2; mask > 0; mask /= 2) {
      const int32_t other = shuffle_xor(mine, mask);
      mine = other < mine ? other : mine;
    }
    return mine;
  }
}

// The largest logit first: sums that are relative to it are then only added.
template <LcMode kMode, int kLanes, typename T>
PCLC_DEVICE Partial<T> merge_lanes(Partial<T> mine) {
  mine = relative_to<kMode>(largest_of_lanes<kLanes>(mine.top), mine, Exp{});
  mine.first = lowest_of_lanes<kLanes>(mine.first);
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) {
    Partial<T> other = mine;
    other.exp_sum = shuffle_xor(mine.exp_sum, mask);
    if constexpr (kMode != LcMode::kHard) {
      other.lc_sum = shuffle_xor(mine.lc_sum, mask);
      other.lc_count = shuffle_xor(mine.lc_count, mask);
    }
    mine = add<kMode>(mine, other);
  }
  return mine;
}

template <int kLanes, typename T>
PCLC_DEVICE Hinges<T> add_lanes(Hinges<T> mine) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) {
    mine = add(mine, {shuffle_xor(mine.active, mask), shuffle_xor(mine.active_sum, mask)});
  }
  return mine;
}

// kLanes lanes have a row: several rows a warp.
template <typename T, int kLanes>
struct LaneTeam {
  PCLC_DEVICE int index() const { return lane() % kLanes; }
  PCLC_DEVICE int64_t teams() const { return threads() / kLanes; }
  PCLC_DEVICE int64_t number() const { return thread() / kLanes; }
  template <LcMode kMode>
  PCLC_DEVICE Partial<T> merged(const Partial<T>& mine) const {
    return merge_lanes<kMode, kLanes>(mine);
  }
  PCLC_DEVICE Hinges<T> added(const Hinges<T>& mine) const { return add_lanes<kLanes>(mine); }
};

// A warp has a row, and so many of the block's slots in shared memory.
template <typename T>
class WarpTeam {
 public:
  PCLC_DEVICE explicit WarpTeam(Shared<T>&) {}
  PCLC_DEVICE int index() const { return lane(); }
  PCLC_DEVICE int size() const { return kWarp; }
  PCLC_DEVICE int32_t owner(uint32_t slot) const { return static_cast<int32_t>(slot % kWarp); }
  PCLC_DEVICE int64_t teams() const { return blocks() * warps(); }
  PCLC_DEVICE int64_t number() const { return block() * warps() + warp(); }
  PCLC_DEVICE int of_block() const { return warp(); }
  PCLC_DEVICE int blocks_of_row() const { return 1; }
  PCLC_DEVICE int rank() const { return 0; }

  template <LcMode kMode>
  PCLC_DEVICE Partial<T> merged(const Partial<T>& mine) {
    return merge_lanes<kMode, kWarp>(mine);
  }
  PCLC_DEVICE Hinges<T> added(const Hinges<T>& mine) { return add_lanes<kWarp>(mine); }
  PCLC_DEVICE void stop_reading() const {}
  PCLC_DEVICE void end_row() {}
};

// What the warps of a block have.
template <typename T>
class BlockTeam {
 public:
  PCLC_DEVICE explicit BlockTeam(Shared<T>& shared) : shared_(shared) {}

  template <LcMode kMode>
  PCLC_DEVICE Partial<T> merged(const Partial<T>& mine) {
    const Partial<T> of_warp = merge_lanes<kMode, kWarp>(mine);
    Partial<T>* slots = shared_.partial[turn_];
    if (lane() == 0) slots[warp()] = of_warp;
    sync_block();
    return merge_lanes<kMode, kWarp>(lane() < warps() ? slots[lane()] : Partial<T>{});
  }
  PCLC_DEVICE Hinges<T> added(const Hinges<T>& mine) {
    const Hinges<T> of_warp = add_lanes<kWarp>(mine);
    Hinges<T>* slots = shared_.hinges[turn_];
    if (lane() == 0) slots[warp()] = of_warp;
    sync_block();
    return add_lanes<kWarp>(lane() < warps() ? slots[lane()] : Hinges<T>{});
  }
  PCLC_DEVICE void end_row() { turn_ ^= 1; }

 private:
  Shared<T>& shared_;
  int turn_ = 0;
};

// The blocks of a cluster have a row; one block where there is no cluster. What one of them has in
// shared memory may be read by the others until all have arrived at the end of the row.
template <typename T>
class ClusterTeam {
 public:
  PCLC_DEVICE explicit ClusterTeam(Shared<T>& shared)
      : shared_(shared),
        block_(shared),
        blocks_(cluster_size()),
        rank_(cluster_rank()),
        inverse_(UINT32_MAX / static_cast<uint32_t>(threads()) + 1) {}
  PCLC_DEVICE int index() const { return thread(); }
  PCLC_DEVICE int size() const { return threads(); }
  // slot % size(), exact below 2^32 / size().
  PCLC_DEVICE int32_t owner(uint32_t slot) const {
    const auto turn = static_cast<uint32_t>(static_cast<uint64_t>(slot) * inverse_ >> 32);
    return static_cast<int32_t>(slot - turn * static_cast<uint32_t>(threads()));
  }
  PCLC_DEVICE int64_t teams() const { return blocks() / blocks_; }
  PCLC_DEVICE int64_t number() const { return block() / blocks_; }
  PCLC_DEVICE int of_block() const { return 0; }
  PCLC_DEVICE int blocks_of_row() const { return blocks_; }
  PCLC_DEVICE int rank() const { return rank_; }

  template <LcMode kMode>
  PCLC_DEVICE Partial<T> merged(const Partial<T>& mine) {
    Partial<T> whole = block_.template merged<kMode>(mine);
    if (blocks_ == 1) return whole;
    if (thread() == 0) shared_.block_partial = whole;
    arrive_at_cluster();
    wait_for_cluster();
    whole = lane() < blocks_ ? *shared_of(&shared_.block_partial, lane()) : Partial<T>{};
    return merge_lanes<kMode, kWarp>(whole);
  }
  PCLC_DEVICE Hinges<T> added(const Hinges<T>& mine) {
    Hinges<T> whole = block_.added(mine);
    if (blocks_ == 1) return whole;
    if (thread() == 0) shared_.block_hinges = whole;
    arrive_at_cluster();
    wait_for_cluster();
    whole = lane() < blocks_ ? *shared_of(&shared_.block_hinges, lane()) : Hinges<T>{};
    return add_lanes<kWarp>(whole);
  }
  // Between the two the gradient is written, so that nobody waits for others to have read.
  PCLC_DEVICE void stop_reading() const {
    if (blocks_ > 1) arrive_at_cluster();
  }
  PCLC_DEVICE void end_row() {
    if (blocks_ > 1) wait_for_cluster();
    block_.end_row();
  }

 private:
  Shared<T>& shared_;
  BlockTeam<T> block_;
  int blocks_, rank_;
  uint32_t inverse_;
};

// What the first kSummingThreads threads have, added up; every thread of the block calls it.
template <typename T>
PCLC_DEVICE double sum_over_block(double mine, Shared<T>& shared) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) mine += shuffle_xor(mine, mask);
  sync_block();  // others may still read what was there
  if (lane() == 0 && warp() < kSummingWarps) shared.sums[warp()] = mine;
  sync_block();
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kSummingWarps; ++i) sum += shared.sums[i];
  return sum;
}

template <typename T, class Value>
PCLC_DEVICE double sum_over(int64_t begin, int64_t end, Shared<T>& shared, const Value& value) {
  double sum = 0;
  if (thread() < kSummingThreads) {
#pragma unroll 4
    for (int64_t i = begin + thread(); i < end; i += kSummingThreads) sum += value(i);
  }
  return sum_over_block(sum, shared);
}

template <typename T>
PCLC_DEVICE double sum_weights(const Call<T>& c, int64_t begin, int64_t end, Shared<T>& shared) {
  return sum_over(begin, end, shared,
                  [&](int64_t i) { return static_cast<double>(class_weight(c, c.target[i])); });
}

// What the mean divides by: the sum of all weights, from prepare_weights where it has run.
template <typename T>
PCLC_DEVICE double total_weight(const ForwardCall<T>& c, Shared<T>& shared) {
  if (c.reduction != Reduction::kMean) return 1;
  if (!c.parts) return sum_weights(c, 0, c.rows, shared);
  return sum_over(0, kParts, shared, [&](int64_t i) { return c.parts[i]; });
}

template <typename T>
PCLC_DEVICE double total_weight(const BackwardCall<T>& c, Shared<T>& shared) {
  if (c.reduction != Reduction::kMean) return 1;
  return c.rows > kFewRows ? saved_total(c.row_stats) : sum_weights(c, 0, c.rows, shared);
}

// 0 where there is no row whose gradient counts.
template <typename T>
PCLC_DEVICE T inverse_of(double total) {
  return total == 0 ? T(0) : T(1) / static_cast<T>(total);
}

// The reduced loss from what every thread has of it. The last of the `count` blocks that take part
// adds up what all have left.
template <typename T>
PCLC_DEVICE void reduce_loss(const ForwardCall<T>& c, double mine, double total, int64_t index,
                             int64_t count, Shared<T>& shared) {
  if (c.reduction == Reduction::kNone) return;
  const double of_block = sum_over_block(mine, shared);
  if (thread() == 0) {
    c.partial_losses[index] = of_block;
    fence();
    shared.is_last = take_ticket(c.blocks_done) == static_cast<uint32_t>(count - 1);
    fence();
  }
  sync_block();
  if (!shared.is_last) return;
  const volatile double* losses = c.partial_losses;
  const double loss = sum_over(0, count, shared, [&](int64_t i) { return losses[i]; });
  if (thread() != 0) return;
  *c.loss = static_cast<T>(loss / total);
  *c.blocks_done = 0;
}

}  // namespace pclc::device
