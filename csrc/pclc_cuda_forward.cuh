// The forward kernels: loss, and gradient for a grad_output of 1, from one read of the logits where
// a row fits into registers or shared memory.

#pragma once

#include "pclc_cuda_held.cuh"

namespace pclc::device {

// One of kParts shares of the sum of all weights.
template <typename T>
PCLC_KERNEL(kSummingThreads, 1)
prepare_weights(const Call<T> c, double* parts) {
  Shared<T>& shared = shared_front<T>();
  const int64_t share = (c.rows + blocks() - 1) / blocks();
  const int64_t begin = block() * share;
  const int64_t end = begin + share < c.rows ? begin + share : c.rows;
  const double sum = sum_weights(c, begin, end, shared);
  if (thread() == 0) parts[block()] = sum;
}

// The row stays in the registers of its team, from the only read to the only write.
template <class S, LcMode kMode, class Team, class Held, typename T = typename S::Compute>
PCLC_DEVICE void forward_held(const ForwardCall<T>& c) {
  Shared<T>& shared = shared_front<T>();
  const double total = total_weight(c, shared);
  const T inverse = inverse_of<T>(total);
  Team team(shared);
  double loss_sum = 0;
  for (int64_t begin = block() * team.teams(); begin < c.rows; begin += blocks() * team.teams()) {
    const Row<T> row = row_at<S>(c, begin + team.number());
    const RowView<S> view = view_of<S>(c, row);
    Held held(view, team.index(), team.size());
    const Partial<T> part = reduce<kMode>(held, row.true_logit, c.terms.lc_cap);
    RowStats<T> stats = row_stats(team.template merged<kMode>(part), row.label);
    const RowProbs<T> probs = probs_of(row, stats, c.terms);
    if (team.any(probs.pc_case == PcCase::kMixed)) {
      held.forget_numbers();
      const Hinges<T> hinges = team.added(count(held, stats, probs));
      stats.active = hinges.active, stats.active_sum = hinges.active_sum;
    }
    if (team.index() == 0) {
      const T loss = loss_of(row, probs, stats, c.terms);
      save_row(c, row, probs, stats, loss, total);
      loss_sum += static_cast<double>(loss);
    }
    if (view.grad) {
      held.forget_numbers();
      held.write(view, Writer<S, kMode>(row, probs, stats, c.terms, inverse * row.weight));
    }
    team.end_row();
  }
  reduce_loss(c, loss_sum, total, block(), blocks(), shared);
}

// A few lanes have a row: kElements * kLanes classes.
template <class S, LcMode kMode, int kLanes, int kElements>
PCLC_KERNEL(128, 4)
forward_lanes(const ForwardCall<typename S::Compute> c) {
  using Team = LaneTeam<typename S::Compute, kLanes>;
  forward_held<S, kMode, Team, HeldScalars<S, kLanes, kElements>>(c);
}

// Blocks of 128 threads that the registers of a multiprocessor are to suffice for.
template <class S, int kVectors>
constexpr int kWarpBlocks = kVectors * kWidth<S> <= 8    ? 8
                            : kVectors * kWidth<S> <= 32 ? 5
                                                         : 3;

// A warp has a row: kVectors * 32 vectors.
template <class S, LcMode kMode, int kVectors>
PCLC_KERNEL(128, (kWarpBlocks<S, kVectors>))
forward_warp(const ForwardCall<typename S::Compute> c) {
  using Team = LaneTeam<typename S::Compute, kWarp>;
  forward_held<S, kMode, Team, HeldVectors<S, kVectors>>(c);
}

constexpr int kBlockVectors = 8;  // of a thread in forward_block

// A block has a row: kBlockVectors vectors a thread.
template <class S, LcMode kMode>
PCLC_KERNEL(512, 1)
forward_block(const ForwardCall<typename S::Compute> c) {
  using Team = BlockTeam<typename S::Compute>;
  forward_held<S, kMode, Team, HeldVectors<S, kBlockVectors>>(c);
}

// The threads of forward_long, and the blocks of them that a multiprocessor is to have registers
// for: 24 warps, 12 with float64. float32 rows leave shared memory for one block only.
template <class S, bool kKeep>
constexpr int kLongThreads = kKeep && sizeof(typename S::Stored) == 4 ? 768 : 384;
template <class S, bool kKeep>
constexpr int kLongBlocks = sizeof(typename S::Stored) <= (kKeep ? 2 : 4) ? 2 : 1;

// A row is shared by the blocks of a cluster, each of which keeps its vectors in shared memory; or
// it is one block's, which reads it again from global memory for every later pass.
template <class S, LcMode kMode, bool kKeep>
PCLC_KERNEL((kLongThreads<S, kKeep>), (kLongBlocks<S, kKeep>))
forward_long(const ForwardCall<typename S::Compute> c) {
  using T = typename S::Compute;
  using Batch = HeldVectors<S, kBatchVectors<S>>;
  Shared<T>& shared = shared_front<T>();
  Words* kept = reinterpret_cast<Words*>(&shared + 1);
  const double total = total_weight(c, shared);
  const T inverse = inverse_of<T>(total);
  if (thread() == 0) shared.total = total, shared.loss_sum = 0;
  ClusterTeam<T> team(shared);
  const int clusters = static_cast<int>(blocks()) / team.blocks_of_row();
  const int cluster = static_cast<int>(block()) / team.blocks_of_row();
  const int step = threads(), batch = step * kBatchVectors<S>;
  for (int64_t i = cluster; i < c.rows; i += clusters) {
    const Row<T> row = row_at<S>(c, i);
    RowView<S> view = view_of<S>(c, row);
    const int share = (view.vectors() + team.blocks_of_row() - 1) / team.blocks_of_row();
    const int begin = team.rank() * share;
    const int end = begin + share < view.vectors() ? begin + share : view.vectors();
    const auto again = [&](int v) {
      return kKeep ? Batch(view, v, step, begin, end, kept) : Batch(view, v, step, end);
    };
    Partial<T> part;
#pragma unroll 1
    for (int v = begin + thread(); v < end; v += batch) {
      Batch held(view, v, step, end);
      if (kKeep) held.keep(begin, end, kept);
      part = merge<kMode>(part, reduce<kMode>(held, row.true_logit, c.terms.lc_cap), Exp{});
    }
    RowStats<T> stats = row_stats(team.template merged<kMode>(part), row.label);
    const RowProbs<T> probs = probs_of(row, stats, c.terms);
    if (probs.pc_case == PcCase::kMixed) {
      Hinges<T> hinges;
#pragma unroll 1
      for (int v = begin + thread(); v < end; v += batch) {
        hinges = add(hinges, count(again(v), stats, probs));
      }
      hinges = team.added(hinges);
      stats.active = hinges.active, stats.active_sum = hinges.active_sum;
    }
    team.stop_reading();
    if (team.rank() == 0 && thread() == 0) {
      const T loss = loss_of(row, probs, stats, c.terms);
      save_row(c, row, probs, stats, loss, shared.total);
      shared.loss_sum += static_cast<double>(loss);
    }
    if (view.grad) {
      const Writer<S, kMode> writer(row, probs, stats, c.terms, inverse * row.weight);
      view.is_skipped |= writer.is_constant;
#pragma unroll 1
      for (int v = begin + thread(); v < end; v += batch) again(v).write(view, writer, end);
    }
    team.end_row();
  }
  if (team.rank() != 0) return;
  const double loss_sum = thread() == 0 ? shared.loss_sum : 0;
  reduce_loss(c, loss_sum, shared.total, cluster, clusters, shared);
}

}  // namespace pclc::device
