// A GPU on a CPU, for pclc_cuda_device.cuh and pclc_cuda_launch.cuh: every CUDA thread is a fiber,
// and fibers change where the kernel waits for others. The order in which they run can be turned
// round: kernels that forget to wait then differ. Waiting that cannot end is reported.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "pclc_cpu_math.h"
#include "pclc_cuda.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define PCLC_KERNEL(threads, blocks) inline void
#define PCLC_DEVICE inline

namespace pclc::device {

struct Purpose {
  const char* kernel;
  int64_t rows, classes;
};

struct Shape {
  int threads;
  int cluster = 1;
  size_t shared_bytes = 0;
};

template <class Call>
using Kernel = void (*)(Call);

namespace emulated {

// What the emulated device has, and what has been started on it.
struct Gpu {
  int64_t blocks = 3;    // at a time: few, so that they take rows in turns
  int64_t clusters = 2;  // 0: there are none
  size_t shared_bytes = 227 * 1024;
  bool reversed = false;  // fibers and blocks from the last to the first
  uint32_t counter = 0;
  std::vector<std::string> started;
};
inline Gpu gpu;

[[noreturn]] inline void fail(const char* what) {
  std::printf("emulator: %s in %s\n", what, gpu.started.empty() ? "" : gpu.started.back().c_str());
  std::fflush(stdout);
  std::abort();
}

// Opens when all have arrived.
struct Gate {
  int expected = 0, arrived = 0;
  uint64_t opened = 0;  // times
  void arrive() {
    if (++arrived == expected) arrived = 0, ++opened;
  }
};

constexpr int kLanes = 32;

struct WarpState {
  Gate gate{kLanes};
  uint64_t values[2][kLanes];
  int operation = 0;  // of the lanes that have arrived
};

struct BlockState {
  int64_t index;
  int rank;
  int running;  // threads that have not ended
  std::unique_ptr<uint8_t, void (*)(void*)> shared{nullptr, std::free};
  Gate gate;
  std::vector<WarpState> warps;
};

struct Fiber {
  ucontext_t start;
  jmp_buf place;  // once it has started: jumps take no system call
  bool has_started = false;
  BlockState* block;
  int thread;
  bool is_done = false;
  const Gate* waits_for = nullptr;
  uint64_t opened_before = 0;
  bool has_arrived_at_cluster = false;
  uint64_t cluster_opened_before = 0;
  void* fake_stack = nullptr;
};

constexpr size_t kStack = 128 * 1024;

struct Machine {
  Shape shape;
  int64_t blocks;
  std::vector<BlockState> cluster;
  Gate cluster_gate;
  std::vector<Fiber> fibers;
  std::vector<std::unique_ptr<uint8_t[]>> stacks;  // kept from launch to launch
  Fiber* current = nullptr;
  jmp_buf scheduler;
  void* scheduler_stack = nullptr;
  const void* scheduler_bottom = nullptr;
  size_t scheduler_size = 0;
  void (*run)(const void*) = nullptr;
  const void* arguments = nullptr;
};
inline Machine machine;

inline void leave_fiber([[maybe_unused]] bool for_ever) {
  Fiber& fiber = *machine.current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fiber.fake_stack, machine.scheduler_bottom,
                                 machine.scheduler_size);
#endif
  if (_setjmp(fiber.place) == 0) _longjmp(machine.scheduler, 1);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

inline void enter_fiber(Fiber& fiber, [[maybe_unused]] size_t number) {
  machine.current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&machine.scheduler_stack, machine.stacks[number].get(), kStack);
#endif
  if (_setjmp(machine.scheduler) == 0) {
    if (fiber.has_started) _longjmp(fiber.place, 1);
    fiber.has_started = true;
    setcontext(&fiber.start);
  }
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(machine.scheduler_stack, nullptr, nullptr);
#endif
}

inline void run_fiber() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_bottom, &machine.scheduler_size);
#endif
  machine.run(machine.arguments);
  machine.current->is_done = true;
  leave_fiber(true);
}

inline void wait_at(const Gate& gate, uint64_t opened_before) {
  if (gate.opened != opened_before) return;
  machine.current->waits_for = &gate;
  machine.current->opened_before = opened_before;
  leave_fiber(false);
}

inline void pass(Gate& gate) {
  const uint64_t opened = gate.opened;
  gate.arrive();
  wait_at(gate, opened);
}

// What each lane of the warp has, after all have said it. `operation` has to be the same in all.
inline const uint64_t* exchange(uint64_t value, int operation) {
  const int thread = machine.current->thread;
  WarpState& warp = machine.current->block->warps[thread / kLanes];
  uint64_t* values = warp.values[warp.gate.opened % 2];
  if (warp.gate.arrived == 0) warp.operation = operation;
  if (warp.operation != operation) fail("lanes of a warp meet in different operations");
  values[thread % kLanes] = value;
  pass(warp.gate);
  return values;
}

inline void prepare_cluster(int64_t first_block) {
  const Shape& shape = machine.shape;
  machine.cluster.clear();
  machine.cluster.resize(shape.cluster);
  machine.cluster_gate = {shape.cluster * shape.threads};
  for (int rank = 0; rank < shape.cluster; ++rank) {
    BlockState& block = machine.cluster[rank];
    block.index = first_block + rank, block.rank = rank, block.running = shape.threads;
    block.shared.reset(static_cast<uint8_t*>(std::malloc(shape.shared_bytes)));
    std::memset(block.shared.get(), 0xff, shape.shared_bytes);  // NaN
    block.gate.expected = shape.threads;
    block.warps.resize(shape.threads / kLanes);
  }
  const size_t count = static_cast<size_t>(shape.cluster) * shape.threads;
  while (machine.stacks.size() < count) {
    machine.stacks.emplace_back(new uint8_t[kStack]);
  }
  machine.fibers.clear();
  machine.fibers.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Fiber& fiber = machine.fibers[i];
    fiber.block = &machine.cluster[i / shape.threads];
    fiber.thread = static_cast<int>(i % shape.threads);
    getcontext(&fiber.start);
    fiber.start.uc_stack = {machine.stacks[i].get(), 0, kStack};
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
  }
}

inline void run_cluster() {
  const size_t count = machine.fibers.size();
  for (size_t done = 0; done < count;) {
    bool has_moved = false;
    for (size_t turn = 0; turn < count; ++turn) {
      const size_t i = gpu.reversed ? count - 1 - turn : turn;
      Fiber& fiber = machine.fibers[i];
      if (fiber.is_done) continue;
      if (fiber.waits_for && fiber.waits_for->opened == fiber.opened_before) continue;
      fiber.waits_for = nullptr;
      enter_fiber(fiber, i);
      has_moved = true;
      if (fiber.is_done) ++done, --fiber.block->running;
    }
    if (!has_moved) fail("threads wait for ever");
  }
}

}  // namespace emulated

template <class Call>
int64_t room_for(Kernel<Call>, const Shape& shape, const CudaPlace&) {
  if (shape.shared_bytes > emulated::gpu.shared_bytes) return 0;
  return shape.cluster > 1 ? emulated::gpu.clusters : emulated::gpu.blocks;
}

inline uint32_t* counter_for(const CudaPlace&) { return &emulated::gpu.counter; }

template <class... Parameters, class... Arguments>
void launch(const Purpose& purpose, void (*kernel)(Parameters...), int64_t blocks,
            const Shape& shape, const CudaPlace&, const Arguments&... arguments) {
  using emulated::machine;
  emulated::gpu.started.push_back(purpose.kernel);
  if (blocks < 1 || blocks % shape.cluster || shape.threads % emulated::kLanes ||
      shape.threads > 1024 || shape.shared_bytes > emulated::gpu.shared_bytes) {
    emulated::fail("a launch that the device would refuse");
  }
  const auto call = [&] { kernel(arguments...); };
  machine.shape = shape;
  machine.blocks = blocks;
  machine.arguments = &call;
  machine.run = [](const void* f) { (*static_cast<const decltype(call)*>(f))(); };
  for (int64_t i = 0; i < blocks; i += shape.cluster) {
    emulated::prepare_cluster(emulated::gpu.reversed ? blocks - shape.cluster - i : i);
    emulated::run_cluster();
  }
}

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

inline void forget(Words&) {}

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
