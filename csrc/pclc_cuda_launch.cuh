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

constexpr int64_t kLaneClasses = 128;        // up to here a few lanes have a row
constexpr int64_t kRegisterClasses = 16384;  // up to here it stays in registers
constexpr int64_t kSharedClasses = 32768;    // of a block in shared memory
constexpr int kSmallBlock = 128;             // threads

// On sm_90 a multiprocessor has 228 KB, of which every block takes 1 KB for itself: one block with
// float32 rows, two with rows of 16 bits.
template <class S>
constexpr size_t kMostShared =
    sizeof(Shared<float>) + sizeof(Words) * (kSharedClasses / kWidth<S> + 2);
static_assert(kMostShared<Float32> <= 227 * 1024 &&
              2 * (kMostShared<BFloat16> + 1024) <= 228 * 1024);

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

template <class S, LcMode kMode, typename T = typename S::Compute>
void forward_in_registers(const ForwardCall<T>& c, const CudaPlace& place) {
  const auto lanes = [&](Kernel<ForwardCall<T>> kernel, int size) {
    start<T>("forward_lanes", kernel, c, c.rows, kSmallBlock / size, {kSmallBlock}, place);
  };
  const auto warp = [&](Kernel<ForwardCall<T>> kernel) {
    start<T>("forward_warp", kernel, c, c.rows, kSmallBlock / kWarp, {kSmallBlock}, place);
  };
  constexpr int kEighth = 8 / kWidth<S>;  // vectors for 8 elements a lane
  const int64_t vectors = vectors_of<S>(c);
  if (c.classes <= 32) return lanes(forward_lanes<S, kMode, 8, 4>, 8);
  if (c.classes <= kLaneClasses) return lanes(forward_lanes<S, kMode, 16, 8>, 16);
  if (vectors <= kWarp * kEighth) return warp(forward_warp<S, kMode, kEighth>);
  if (vectors <= kWarp * kEighth * 4) return warp(forward_warp<S, kMode, kEighth * 4>);
  if (vectors <= kWarp * kEighth * 8) return warp(forward_warp<S, kMode, kEighth * 8>);
  int threads = kSmallBlock;
  while (threads * kBlockVectors < vectors) threads *= 2;
  start<T>("forward_block", forward_block<S, kMode>, c, c.rows, 1, {threads}, place);
}

// Rows of more classes: by the smallest cluster that holds one, else from global memory.
template <class S, LcMode kMode, typename T = typename S::Compute>
void forward_long_rows(const ForwardCall<T>& c, const CudaPlace& place) {
  if constexpr (sizeof(T) == 4) {
    const int threads = kLongThreads<S, true>;
    for (int cluster : {1, 2, 4, 8}) {
      if (c.classes > kSharedClasses * cluster) continue;
      const int64_t share = (vectors_of<S>(c) + cluster - 1) / cluster;
      const Shape shape{threads, cluster, static_cast<size_t>(share) * sizeof(Words)};
      const Shape whole{threads, cluster, shape.shared_bytes + sizeof(Shared<T>)};
      const char* name = cluster == 1 ? "forward_shared" : "forward_cluster";
      const Kernel<ForwardCall<T>> kernel = forward_long<S, kMode, true>;
      if (room_for(Purpose{name, c.rows, c.classes}, kernel, whole, place) == 0) continue;
      return start<T>(name, kernel, c, c.rows, 1, shape, place);
    }
  }
  const int threads = c.classes <= 1024 ? kSmallBlock : kLongThreads<S, false>;
  start<T>("forward_streamed", forward_long<S, kMode, false>, c, c.rows, 1, {threads}, place);
}

template <class S, LcMode kMode, typename T = typename S::Compute>
void forward(const ForwardCall<T>& c, const CudaPlace& place) {
  if constexpr (sizeof(T) == 4) {
    if (c.classes <= kRegisterClasses) return forward_in_registers<S, kMode>(c, place);
  }
  forward_long_rows<S, kMode>(c, place);
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
                   nullptr};
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
