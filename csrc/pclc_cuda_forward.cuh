// The forward kernels: loss, and gradient for a grad_output of 1, from one read of the logits where
// a row fits into registers or shared memory.

#pragma once

#include "pclc_cuda_kept.cuh"

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

// A few lanes have a row, kElements * kLanes classes, in registers.
template <class S, LcMode kMode, int kLanes, int kElements>
PCLC_KERNEL(128, 4)
forward_lanes(const ForwardCall<typename S::Compute> c) {
  using T = typename S::Compute;
  Shared<T>& shared = shared_front<T>();
  const double total = total_weight(c, shared);
  const T inverse = inverse_of<T>(total);
  const LaneTeam<T, kLanes> team;
  double loss_sum = 0;
  for (int64_t begin = block() * team.teams(); begin < c.rows; begin += blocks() * team.teams()) {
    const Row<T> row = row_at<S>(c, begin + team.number());
    const RowView<S> view = view_of<S>(c, row);
    const HeldScalars<S, kLanes, kElements> held(view, team.index());
    const Partial<T> part = reduce<kMode>(held, row.true_logit, c.terms.lc_cap);
    RowStats<T> stats = row_stats(team.template merged<kMode>(part), row.label);
    const RowProbs<T> probs = probs_of(row, stats, c.terms);
    if (any_lane(probs.pc_case == PcCase::kMixed)) {
      const Hinges<T> hinges = team.added(count(held, Threshold<S>(probs, stats)));
      stats.active = hinges.active, stats.active_sum = hinges.active_sum;
    }
    if (team.index() == 0) {
      const T loss = loss_of(row, probs, stats, c.terms);
      save_row(c, row, probs, stats, loss, total);
      loss_sum += static_cast<double>(loss);
    }
    if (view.grad) {
      held.write(view, Writer<S, kMode>(row, probs, stats, c.terms, inverse * row.weight));
    }
  }
  reduce_loss(c, loss_sum, total, block(), blocks(), shared);
}

// What the threads of a team have of a row, in two passes: the sums, and for a mixed row the active
// hinges.
template <class S, LcMode kMode, int kVectors, class Team, class Rows,
          typename T = typename S::Compute>
PCLC_DEVICE RowStats<T> stats_of(const Call<T>& c, const Row<T>& row, const Share<S>& share,
                                 const Rows& rows, Team& team) {
  const int32_t batch = kVectors * team.size();
  const int32_t end = share.view.is_skipped ? 0 : share.count;
  Running<S, kMode> running;
#pragma unroll 1
  for (int32_t slot = team.index(); slot < end; slot += batch) {
    running.add(rows.read(share, slot), slot, team.size(), row.true_logit, c.terms.lc_cap);
  }
  Words first = RowView<S>::nothing();
  if (running.vector() != kNoClass) first = rows.read_one(share, running.vector());
  const int32_t begin = share.view.begin(share.begin + running.vector());
  const Partial<T> part = running.sums(first, begin);
  RowStats<T> stats = row_stats(team.template merged<kMode>(part), row.label);
  const RowProbs<T> probs = probs_of(row, stats, c.terms);
  if (probs.pc_case == PcCase::kMixed) {
    const Threshold<S> threshold(probs, stats);
    Hinges<T> hinges;
#pragma unroll 1
    for (int32_t slot = team.index(); slot < end; slot += batch) {
      hinges = add(hinges, count(rows.read(share, slot), threshold));
    }
    hinges = team.added(hinges);
    stats.active = hinges.active, stats.active_sum = hinges.active_sum;
  }
  return stats;
}

// Teams have a row each. While a team writes its gradient, the next row comes to where it has been.
template <class S, LcMode kMode, int kVectors, class Team, class Rows,
          typename T = typename S::Compute>
PCLC_DEVICE void forward_vectors(const ForwardCall<T>& c) {
  Shared<T>& shared = shared_front<T>();
  const double total = total_weight(c, shared);
  const T inverse = inverse_of<T>(total);
  if (thread() == 0) shared.total = total;
  sync_block();
  Team team(shared);
  Rows rows(&shared + 1, c, team);
  const int32_t batch = kVectors * team.size();
  double loss_sum = 0;
  Row<T> row = row_at<S>(c, team.number());
  Share<S> share(c, row, team);
#pragma unroll 1
  for (int32_t slot = team.index(); slot < c.most_count; slot += batch) rows.fetch(share, slot);
  while (row.index < c.rows) {
    const int64_t next_target = target_of(c, row.index + team.teams());  // early: more needs it
    rows.receive(share);
    const RowStats<T> stats = stats_of<S, kMode, kVectors>(c, row, share, rows, team);
    team.stop_reading();
    const RowProbs<T> probs = probs_of(row, stats, c.terms);
    if (team.index() == 0 && team.rank() == 0) {
      const T loss = loss_of(row, probs, stats, c.terms);
      save_row(c, row, probs, stats, loss, shared.total);
      loss_sum += static_cast<double>(loss);
    }
    const Row<T> next_row = row_at<S>(c, row.index + team.teams(), next_target);
    const Share<S> next(c, next_row, team);
    const Writer<S, kMode> writer(row, probs, stats, c.terms, inverse * row.weight);
#pragma unroll 1
    for (int32_t slot = team.index(); slot < c.most_count; slot += batch) {
      if (share.view.grad) {
        HeldVectors<S, kVectors> held = rows.read(share, slot);
        writer.convert(held.words);
        rows.store(share, slot, held);
      }
      rows.fetch(next, slot);
    }
    if (share.view.grad) {
      writer.patch(share.view, [&](int32_t from_first_vector) {
        const uint32_t element = share.element(from_first_vector);
        return element < share.elements() && team.owner(element / kWidth<S>) == team.index();
      });
    }
    team.end_row();
    row = next_row;
    share = next;
  }
  if (team.rank() != 0) return;
  const int64_t blocks_of_row = team.blocks_of_row();
  reduce_loss(c, loss_sum, shared.total, block() / blocks_of_row, blocks() / blocks_of_row, shared);
}

// Vectors that a thread has in registers at a time.
template <class S>
constexpr int kBatch = sizeof(typename S::Stored) == 8 ? 2 : 4;

// Blocks of 128 threads that the registers of a multiprocessor are to suffice for.
template <LcMode kMode>
constexpr int kWarpBlocks = kMode == LcMode::kHard ? 6 : 5;
// Vectors that a lane has in registers at a time. With more of `all` in 16 bits there is a stack.
template <class S, LcMode kMode>
constexpr int kWarpBatch = kMode == LcMode::kAll && kWidth<S> == 8 ? 1 : kBatch<S>;

// A warp has a row in shared memory.
template <class S, LcMode kMode, int kVectors>
PCLC_KERNEL(128, (kWarpBlocks<kMode>))
forward_warp(const ForwardCall<typename S::Compute> c) {
  using Team = WarpTeam<typename S::Compute>;
  forward_vectors<S, kMode, kVectors, Team, Kept<S, Team, kVectors>>(c);
}

constexpr int kMostThreads = 640;  // of a block with a row, so that a thread has 96 registers

// A block has a row in shared memory, or the blocks of a cluster have.
template <class S, LcMode kMode>
PCLC_KERNEL(kMostThreads, 1)
forward_shared(const ForwardCall<typename S::Compute> c) {
  using Team = ClusterTeam<typename S::Compute>;
  forward_vectors<S, kMode, kBatch<S>, Team, Kept<S, Team, kBatch<S>>>(c);
}

// A block has a row of any length, which it reads twice.
constexpr int kStreamedThreads = 256;
template <class S, LcMode kMode>
PCLC_KERNEL(kStreamedThreads, sizeof(typename S::Stored) == 8 ? 1 : 2)
forward_streamed(const ForwardCall<typename S::Compute> c) {
  using Team = ClusterTeam<typename S::Compute>;
  forward_vectors<S, kMode, kBatch<S>, Team, Streamed<S, Team, kBatch<S>>>(c);
}

}  // namespace pclc::device
