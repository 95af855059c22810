// The backward kernels: the gradient for any grad_output from the logits and what forward saved.
// They do nothing where grad_output is 1 and the gradient for that is there already.

#pragma once

#include "pclc_cuda_held.cuh"

namespace pclc::device {

// What scales the gradient of every row; and whether there is nothing to do.
template <typename T>
struct Upstream {
  T factor;
  bool is_done;
};

template <typename T>
PCLC_DEVICE Upstream<T> upstream_of(const BackwardCall<T>& c, Shared<T>& shared) {
  if (c.reduction == Reduction::kNone) return {T(1), false};
  const T grad_output = *c.grad_output;
  if (c.has_unit_grad && grad_output == T(1)) return {grad_output, true};
  return {grad_output * inverse_of<T>(total_weight(c, shared)), false};
}

template <class S, LcMode kMode, typename T>
PCLC_DEVICE Writer<S, kMode> writer_of(const BackwardCall<T>& c, const Row<T>& row, T factor) {
  const RowStats<T> stats = saved_row(c, row);
  const RowProbs<T> probs = probs_of(row, stats, c.terms);
  T scale = factor * row.weight;
  if (c.reduction == Reduction::kNone && row.state != RowState::kAbsent) {
    scale *= c.grad_output[row.index * c.grad_output_stride];
  }
  return {row, probs, stats, c.terms, scale};
}

template <class S, LcMode kMode, int kLanes, int kElements>
PCLC_KERNEL(128, 4)
backward_lanes(const BackwardCall<typename S::Compute> c) {
  using T = typename S::Compute;
  const Upstream<T> upstream = upstream_of(c, shared_front<T>());
  if (upstream.is_done) return;
  const LaneTeam<T, kLanes> team;
  const int64_t step = blocks() * team.teams();
  for (int64_t i = block() * team.teams() + team.number(); i < c.rows; i += step) {
    const Row<T> row = row_at<S>(c, i);
    const RowView<S> view = view_of<S>(c, row);
    const HeldScalars<S, kLanes, kElements> held(view, team.index());
    held.write(view, writer_of<S, kMode>(c, row, upstream.factor));
  }
}

// The vectors of a row that a warp takes at a time: 16 a lane.
constexpr int kSliceVectors = 16 * kWarp;

// Warps take slices of rows in turns.
template <class S, LcMode kMode>
PCLC_KERNEL(128, 4)
backward_warp(const BackwardCall<typename S::Compute> c) {
  using T = typename S::Compute;
  constexpr int kVectors = sizeof(typename S::Stored) == 4 ? 4 : 2;
  const Upstream<T> upstream = upstream_of(c, shared_front<T>());
  if (upstream.is_done) return;
  const int64_t slices = (most_vectors<S>(c.classes) + kSliceVectors - 1) / kSliceVectors;
  const int64_t step = blocks() * warps();
  for (int64_t i = block() * warps() + warp(); i < c.rows * slices; i += step) {
    const Row<T> row = row_at<S>(c, i / slices);
    const RowView<S> view = view_of<S>(c, row);
    const Writer<S, kMode> writer = writer_of<S, kMode>(c, row, upstream.factor);
    const int begin = static_cast<int>(i % slices) * kSliceVectors;
    const int end = begin + kSliceVectors < view.vectors() ? begin + kSliceVectors : view.vectors();
    for (int v = begin + lane(); v < end; v += kWarp * kVectors) {
      HeldVectors<S, kVectors> held;
#pragma unroll
      for (int n = 0; n < kVectors; ++n) {
        const bool is_read = v + n * kWarp < end && !writer.is_constant;
        held.words[n] = is_read ? view.load(v + n * kWarp) : RowView<S>::nothing();
      }
      writer.convert(held.words);
#pragma unroll
      for (int n = 0; n < kVectors; ++n) {
        if (v + n * kWarp < end) view.store(v + n * kWarp, held.words[n]);
      }
    }
    writer.patch(view, [&](int32_t element) {
      const int v = element / kWidth<S>;
      return begin <= v && v < end && (v - begin) % kWarp == lane();
    });
  }
}

}  // namespace pclc::device
