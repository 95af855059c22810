// What pclc_cuda_device.cuh takes from CUDA, on the device of emulated_gpu.h.

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "emulated_gpu.h"
#include "pclc_cpu_math.h"

#define PCLC_KERNEL(threads, blocks) inline void
#define PCLC_DEVICE inline

namespace pclc::device {

struct alignas(16) Words {
  uint32_t at[4];
};

inline int thread() { return emulated::machine.current->thread; }
inline int threads() { return emulated::machine.shape.threads; }
inline int64_t block() { return emulated::machine.current->block->index; }
inline int64_t blocks() { return emulated::machine.blocks; }
inline void sync_block() { emulated::pass(emulated::machine.current->block->gate); }
inline void* shared_memory() { return emulated::machine.current->block->shared.get(); }

template <typename T>
T shuffle_xor(T value, int mask) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = emulated::exchange(bits, mask)[thread() % emulated::kLanes ^ mask];
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
inline bool any_lane(bool condition) {
  const uint64_t* said = emulated::exchange(condition, -1);
  return std::any_of(said, said + emulated::kLanes, [](uint64_t yes) { return yes != 0; });
}
inline int32_t most_of_lanes(int32_t value) {
  const uint64_t* said = emulated::exchange(static_cast<uint32_t>(value), -2);
  for (int i = 0; i < emulated::kLanes; ++i) value = std::max(value, static_cast<int32_t>(said[i]));
  return value;
}
inline int32_t least_of_lanes(int32_t value) {
  const uint64_t* said = emulated::exchange(static_cast<uint32_t>(value), -3);
  for (int i = 0; i < emulated::kLanes; ++i) value = std::min(value, static_cast<int32_t>(said[i]));
  return value;
}

inline void check_words(const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % 16) emulated::fail("16 bytes across a boundary");
}
inline Words load_words(const void* from) {
  check_words(from);
  Words words;
  std::memcpy(&words, from, sizeof(words));
  return words;
}
inline void store_words(void* to, const Words& words) {
  check_words(to);
  std::memcpy(to, &words, sizeof(words));
}

// As late as they may be: a thread that forgets to wait reads what was there before.
inline void copy_words(Words* to, const void* from) {
  check_words(to);
  check_words(from);
  emulated::machine.current->copies.push_back({to, from});
}
inline void wait_for_copies() {
  for (const auto& [to, from] : emulated::machine.current->copies) {
    std::memcpy(to, from, sizeof(Words));
  }
  emulated::machine.current->copies.clear();
}

inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
inline double double_of(uint32_t low, uint32_t high) {
  return std::bit_cast<double>(static_cast<uint64_t>(high) << 32 | low);
}
inline uint32_t low_bits(double v) { return static_cast<uint32_t>(std::bit_cast<uint64_t>(v)); }
inline uint32_t high_bits(double v) {
  return static_cast<uint32_t>(std::bit_cast<uint64_t>(v) >> 32);
}
inline float float_of_half(uint32_t bits) {
  return pclc::Float16::load(static_cast<uint16_t>(bits));
}
inline uint32_t two_halves(float first, float second) {
  return pclc::Float16::store(first) | static_cast<uint32_t>(pclc::Float16::store(second)) << 16;
}
inline uint32_t two_bfloats(float first, float second) {
  return pclc::BFloat16::store(first) | static_cast<uint32_t>(pclc::BFloat16::store(second)) << 16;
}

template <typename T>
T max_of(T a, T b) {
  return std::fmax(a, b);
}
template <class S>
uint32_t max_of_pairs(uint32_t a, uint32_t b) {
  const auto larger = [&](int shift) -> uint32_t {
    const auto half = [&](uint32_t pair) { return S::load(static_cast<uint16_t>(pair >> shift)); };
    return static_cast<uint32_t>(S::store(std::fmax(half(a), half(b)))) << shift;
  };
  return larger(0) | larger(16);
}
inline uint32_t max_of_halves(uint32_t a, uint32_t b) { return max_of_pairs<pclc::Float16>(a, b); }
inline uint32_t max_of_bfloats(uint32_t a, uint32_t b) {
  return max_of_pairs<pclc::BFloat16>(a, b);
}
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline float exp2_of(float x) {
  const float result = std::exp2(x);
  return result < std::numeric_limits<float>::min() ? 0.0f : result;
}
inline double exp_of(double x) { return std::exp(x); }

inline void fence() {}
inline uint32_t take_ticket(uint32_t* counter) { return (*counter)++; }

inline int cluster_size() { return emulated::machine.shape.cluster; }
inline int cluster_rank() { return emulated::machine.current->block->rank; }
inline void arrive_at_cluster() {
  emulated::Fiber& fiber = *emulated::machine.current;
  if (fiber.has_arrived_at_cluster) emulated::fail("arrived twice at a cluster's barrier");
  fiber.has_arrived_at_cluster = true;
  fiber.cluster_opened_before = emulated::machine.cluster_gate.opened;
  emulated::machine.cluster_gate.arrive();
}
inline void wait_for_cluster() {
  emulated::Fiber& fiber = *emulated::machine.current;
  if (!fiber.has_arrived_at_cluster) emulated::fail("waits at a cluster's barrier unannounced");
  fiber.has_arrived_at_cluster = false;
  emulated::wait_at(emulated::machine.cluster_gate, fiber.cluster_opened_before);
}
template <typename T>
const T* shared_of(T* mine, int rank) {
  const auto* own = emulated::machine.current->block->shared.get();
  const auto offset = reinterpret_cast<const uint8_t*>(mine) - own;
  const emulated::BlockState& other = emulated::machine.cluster[rank];
  if (other.running == 0) emulated::fail("shared memory of a block that has ended is read");
  return reinterpret_cast<const T*>(other.shared.get() + offset);
}

}  // namespace pclc::device
