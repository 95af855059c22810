// Which kernel takes a call, in which shape. tests/cuda runs this on a CPU as it is; how a kernel
// is started and what the device has room for is said by pclc_cuda_host.cuh, or by the emulator.

#pragma once

#include "pclc_cuda_backward.cuh"
#include "pclc_cuda_forward.cuh"
#include "pclc_cuda_launches.h"
#if !defined(PCLC_EMULATED)
#include "pclc_cuda_host.cuh"
#endif

namespace pclc::device {

static_assert(kCudaWorkspaceBytes == (kParts + kMaxBlocks) * sizeof(double));

constexpr int64_t kLaneClasses = 128;  // up to here a few lanes have a row
constexpr int64_t kWarpVectors = 512;  // up to here a warp
constexpr int kSmallBlock = 128;       // threads

// On sm_90 a multiprocessor has 228 KB of shared memory, of which every block takes 1 KB for
// itself: three blocks have room for such a part of a row, so that one reads while others write.
// Where a cluster has too few blocks for that, one block has room for twice as much.
constexpr int64_t kShareVectors = 4096, kMostShareVectors = 2 * kShareVectors;
constexpr int kShareThreads = 224;  // three times so many have registers
constexpr int kPadVectors = 384;    // of kinds that fill no batch
static_assert(3 * (sizeof(Shared<float>) + sizeof(Words) * (kShareVectors + kPadVectors) + 1024) <=
                  228 * 1024 &&
              sizeof(Shared<float>) + sizeof(Words) * (kMostShareVectors + 3 * kPadVectors) <=
                  227 * 1024);

// The vectors that a row of this call can touch.
template <class S, typename T>
int64_t vectors_of(const Call<T>& c) {
  const bool aligned = c.classes % kWidth<S> == 0 && reinterpret_cast<uintptr_t>(c.grad) % 16 == 0;
  return aligned ? c.classes / kWidth<S> : most_vectors<S>(c.classes);
}

// Starts a kernel whose blocks, or clusters of them, take `teams` rows or slices at a time.
template <typename T, class Call>
void start(const char* name, Kernel<Call> kernel, const Call& c, int64_t work, int64_t teams,
           Shape shape, const CudaPlace& place) {
  shape.shared_bytes += sizeof(Shared<T>);
  const Purpose purpose{name, c.rows, c.classes};
  const int64_t room = room_for(purpose, kernel, shape, place);
  int64_t groups = (work + teams - 1) / teams;
  if (groups > room) groups = room;
  if (groups > kMaxBlocks) groups = kMaxBlocks;
  if (groups < 1) groups = 1;
  launch(purpose, kernel, groups * shape.cluster, shape, place, c);
}

// Threads and slots for `vectors` of a block, in so many batches that few slots are in vain.
struct Slots {
  int threads;
  int64_t count;
};
inline Slots slots_for(int64_t vectors, int batch, int most_threads) {
  const int64_t fewest = (vectors + batch * most_threads - 1) / (batch * most_threads);
  Slots best{0, INT64_MAX};
  for (int64_t batches = fewest; batches < fewest + 3; ++batches) {
    const int64_t lanes = (vectors + batch * batches - 1) / (batch * batches);
    int64_t threads = (lanes + kWarp - 1) / kWarp * kWarp;
    if (threads < kSmallBlock) threads = kSmallBlock;
    const int64_t count = threads * batches * batch;
    if (count < best.count) best = {static_cast<int>(threads), count};
  }
  return best;
}

template <class S, LcMode kMode, typename T = typename S::Compute>
void forward_by_warps(ForwardCall<T> c, const CudaPlace& place) {
  const auto warp = [&](Kernel<ForwardCall<T>> kernel, int batch) {
    const int64_t size = kWarp * batch;
    c.most_count = static_cast<int32_t>(vectors_of<S>(c));
    c.slots = static_cast<int32_t>((c.most_count + size - 1) / size * size);
    const int warps = kSmallBlock / kWarp;
    const Shape shape{kSmallBlock, 1, sizeof(Words) * static_cast<size_t>(c.slots * warps)};
    start<T>("forward_warp", kernel, c, c.rows, warps, shape, place);
  };
  constexpr int kEighth = 8 / kWidth<S>;  // vectors for 8 elements a lane
  if (vectors_of<S>(c) <= kWarp * kEighth) return warp(forward_warp<S, kMode, kEighth>, kEighth);
  warp(forward_warp<S, kMode, kWarpBatch<S, kMode>>, kWarpBatch<S, kMode>);
}

// By the smallest cluster of blocks that has room for a row.
template <class S, LcMode kMode, typename T = typename S::Compute>
bool forward_by_blocks(ForwardCall<T> c, const CudaPlace& place) {
  for (int64_t most : {kShareVectors, kMostShareVectors}) {
    for (int cluster : {1, 2, 4, 8}) {
      if (c.classes > most * kWidth<S> * cluster) continue;
      const int64_t share = (vectors_of<S>(c) + cluster - 1) / cluster;
      const Slots slots =
          slots_for(share, kBatch<S>, most == kShareVectors ? kShareThreads : kMostThreads);
      c.most_count = static_cast<int32_t>(share);
      c.slots = static_cast<int32_t>(slots.count);
      const Shape shape{slots.threads, cluster, sizeof(Words) * static_cast<size_t>(slots.count)};
      const Shape whole{slots.threads, cluster, shape.shared_bytes + sizeof(Shared<T>)};
      const char* name = cluster == 1 ? "forward_block" : "forward_cluster";
      const Kernel<ForwardCall<T>> kernel = forward_shared<S, kMode>;
      if (room_for(Purpose{name, c.rows, c.classes}, kernel, whole, place) == 0) continue;
      start<T>(name, kernel, c, c.rows, 1, shape, place);
      return true;
    }
  }
  return false;
}

template <class S, LcMode kMode, typename T = typename S::Compute>
void forward(ForwardCall<T> c, const CudaPlace& place) {
  if constexpr (sizeof(T) == 4) {
    const auto lanes = [&](Kernel<ForwardCall<T>> kernel, int size) {
      start<T>("forward_lanes", kernel, c, c.rows, kSmallBlock / size, {kSmallBlock}, place);
    };
    if (c.classes <= 32) return lanes(forward_lanes<S, kMode, 8, 4>, 8);
    if (c.classes <= kLaneClasses) return lanes(forward_lanes<S, kMode, 16, 8>, 16);
    if (vectors_of<S>(c) <= kWarpVectors) return forward_by_warps<S, kMode>(c, place);
    if (forward_by_blocks<S, kMode>(c, place)) return;
  }
  c.most_count = static_cast<int32_t>(vectors_of<S>(c));
  const int threads = c.classes <= 1024 ? kSmallBlock : kStreamedThreads;
  start<T>("forward_streamed", forward_streamed<S, kMode>, c, c.rows, 1, {threads}, place);
}

template <class S, LcMode kMode, typename T = typename S::Compute>
void backward(const BackwardCall<T>& c, const CudaPlace& place) {
  if (c.classes <= kLaneClasses) {
    const Kernel<BackwardCall<T>> kernel = backward_lanes<S, kMode, 16, 8>;
    start<T>("backward_lanes", kernel, c, c.rows, kSmallBlock / 16, {kSmallBlock}, place);
    return;
  }
  const int64_t slices = (most_vectors<S>(c.classes) + kSliceVectors - 1) / kSliceVectors;
  start<T>("backward_warp", backward_warp<S, kMode>, c, c.rows * slices, kSmallBlock / kWarp,
           {kSmallBlock}, place);
}

template <typename T>
Call<T> call_of(const Problem& p, const void* row_stats, void* grad) {
  return {p.logits,
          p.target,
          static_cast<const T*>(p.weight),
          p.rows,
          p.row_stride,
          p.ignore_index,
          static_cast<int32_t>(p.classes),
          p.reduction,
          make_terms<T>(p.coefficients, p.lc_mode, p.pc_mean, p.classes),
          static_cast<RowStats<T>*>(const_cast<void*>(row_stats)),
          grad};
}

// A kernel for every LC mode: calls `run` with the mode as a type.
template <class Run>
void with_mode(LcMode mode, const Run& run) {
  switch (mode) {
    case LcMode::kHard: return run(std::integral_constant<LcMode, LcMode::kHard>{});
    case LcMode::kSoft: return run(std::integral_constant<LcMode, LcMode::kSoft>{});
    case LcMode::kAll: return run(std::integral_constant<LcMode, LcMode::kAll>{});
  }
}

template <class S>
void Launches<S>::forward(const Problem& p, const Outputs& out, void* workspace,
                          const CudaPlace& place) {
  using T = typename S::Compute;
  auto* sums = static_cast<double*>(workspace);
  ForwardCall<T> c{call_of<T>(p, out.row_stats, out.grad),
                   static_cast<T*>(out.loss),
                   static_cast<T*>(out.prob_gap),
                   static_cast<T*>(out.logit_gap),
                   out.runner_up,
                   out.correct,
                   nullptr,
                   sums + kParts,
                   nullptr,
                   0,
                   0};
  if (p.reduction == Reduction::kMean && p.rows > kFewRows) {
    launch(Purpose{"prepare_weights", p.rows, p.classes}, prepare_weights<T>, kParts,
           {kSmallBlock, 1, sizeof(Shared<T>)}, place, static_cast<const Call<T>&>(c), sums);
    c.parts = sums;
  }
  const Purpose purpose{"forward", p.rows, p.classes};
  if (p.reduction != Reduction::kNone) c.blocks_done = counter_for(purpose, place);
  with_mode(c.terms.lc_mode, [&](auto mode) { device::forward<S, mode>(c, place); });
}

template <class S>
void Launches<S>::backward(const Problem& p, const void* row_stats, const GradOutput& upstream,
                           bool has_unit_grad, void* grad, const CudaPlace& place) {
  using T = typename S::Compute;
  const BackwardCall<T> c{call_of<T>(p, row_stats, grad), static_cast<const T*>(upstream.data),
                          upstream.stride, has_unit_grad};
  with_mode(c.terms.lc_mode, [&](auto mode) { device::backward<S, mode>(c, place); });
}

}  // namespace pclc::device
