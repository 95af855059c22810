// What kernels ask of a GPU beyond C++: thin wrappers, of which tests/cuda/emulator.h has a second
// set, so that the same kernels run on a CPU under sanitizers.

#pragma once

#include <cstdint>

#if defined(PCLC_EMULATED)
#include "emulator.h"
#else

// No cooperative_groups.h, cuda_bf16.h or cuda_fp16.h, which take longer to read than some of the
// kernels to compile: what they have for this is an instruction each.

#define PCLC_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define PCLC_DEVICE __device__ __forceinline__

namespace pclc::device {

struct alignas(16) Words {
  uint32_t at[4];
};

PCLC_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
PCLC_DEVICE int threads() { return static_cast<int>(blockDim.x); }
PCLC_DEVICE int64_t block() { return blockIdx.x; }
PCLC_DEVICE int64_t blocks() { return gridDim.x; }
PCLC_DEVICE void sync_block() { __syncthreads(); }

// Dynamic shared memory of the block, 16-byte aligned.
PCLC_DEVICE void* shared_memory() {
  extern __shared__ uint4 pclc_shared_memory[];
  return pclc_shared_memory;
}

// Of all 32 lanes, which have to come together.
template <typename T>
PCLC_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
PCLC_DEVICE bool any_lane(bool condition) { return __any_sync(0xffffffffu, condition); }
PCLC_DEVICE int32_t most_of_lanes(int32_t value) { return __reduce_max_sync(0xffffffffu, value); }
PCLC_DEVICE int32_t least_of_lanes(int32_t value) { return __reduce_min_sync(0xffffffffu, value); }

// 16 bytes at a 16-byte boundary. Not through the read-only cache: the gradient may go to where the
// logits are.
PCLC_DEVICE Words load_words(const void* from) {
  const uint4 v = *static_cast<const uint4*>(from);
  return {{v.x, v.y, v.z, v.w}};
}
// The compiler would cut a store in four where it depends on a condition.
PCLC_DEVICE void store_words(void* to, const Words& w) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(w.at[0]), "r"(w.at[1]), "r"(w.at[2]), "r"(w.at[3])
               : "memory");
}

// 16 bytes to shared memory, there once this thread has waited for all its copies. They take no
// registers, so that a whole row can be on its way.
PCLC_DEVICE void copy_words(Words* to, const void* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}
PCLC_DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

PCLC_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
PCLC_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
PCLC_DEVICE double double_of(uint32_t low, uint32_t high) {
  return __hiloint2double(static_cast<int>(high), static_cast<int>(low));
}
PCLC_DEVICE uint32_t low_bits(double v) { return static_cast<uint32_t>(__double2loint(v)); }
PCLC_DEVICE uint32_t high_bits(double v) { return static_cast<uint32_t>(__double2hiint(v)); }

// Halves by their bits; two of them with the first in the low bits. Rounded to nearest even.
PCLC_DEVICE float float_of_half(uint32_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<uint16_t>(bits)));
  return value;
}
PCLC_DEVICE uint32_t two_halves(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
PCLC_DEVICE uint32_t two_bfloats(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

PCLC_DEVICE float max_of(float a, float b) { return fmaxf(a, b); }  // ignores a NaN
PCLC_DEVICE double max_of(double a, double b) { return fmax(a, b); }
PCLC_DEVICE uint32_t max_of_halves(uint32_t a, uint32_t b) {  // of each of the two
  uint32_t pair;
  asm("max.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}
PCLC_DEVICE uint32_t max_of_bfloats(uint32_t a, uint32_t b) {
  uint32_t pair;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}

PCLC_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }  // a b + c

// 2^x with a relative error of 2^-22, 0 where that is no normal number; NaN for NaN.
PCLC_DEVICE float exp2_of(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
PCLC_DEVICE double exp_of(double x) { return exp(x); }

// Makes what this thread has written visible to whoever sees what it writes afterwards.
PCLC_DEVICE void fence() { __threadfence(); }
PCLC_DEVICE uint32_t take_ticket(uint32_t* counter) { return atomicAdd(counter, 1u); }

// Clusters of blocks, which exist from compute capability 9.0 on. A block alone is one of size 1.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
PCLC_DEVICE int cluster_size() { return static_cast<int>(__clusterSizeInBlocks()); }
PCLC_DEVICE int cluster_rank() { return static_cast<int>(__clusterRelativeBlockRank()); }
PCLC_DEVICE void arrive_at_cluster() { __cluster_barrier_arrive(); }
PCLC_DEVICE void wait_for_cluster() { __cluster_barrier_wait(); }
// Where another block of the cluster has what is at `mine` in this one's shared memory.
template <typename T>
PCLC_DEVICE const T* shared_of(T* mine, int rank) {
  return static_cast<const T*>(__cluster_map_shared_rank(mine, static_cast<unsigned>(rank)));
}
#else
PCLC_DEVICE int cluster_size() { return 1; }
PCLC_DEVICE int cluster_rank() { return 0; }
PCLC_DEVICE void arrive_at_cluster() {}
PCLC_DEVICE void wait_for_cluster() {}
template <typename T>
PCLC_DEVICE const T* shared_of(T* mine, int) {
  return mine;
}
#endif

}  // namespace pclc::device

#endif

namespace pclc::device {

constexpr int kWarp = 32;

PCLC_DEVICE int lane() { return thread() % kWarp; }
PCLC_DEVICE int warp() { return thread() / kWarp; }
PCLC_DEVICE int warps() { return threads() / kWarp; }

constexpr float kLog2E = 1.44269504088896341f;

// For arguments up to 0. The product is rounded, so the relative error grows with x as that of a
// difference of logits does.
PCLC_DEVICE float exp_of(float x) { return exp2_of(x * kLog2E); }

struct Exp {
  template <typename T>
  PCLC_DEVICE T operator()(T x) const {
    return exp_of(x);
  }
};

}  // namespace pclc::device
