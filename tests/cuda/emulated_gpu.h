// A GPU on a CPU, for pclc_cuda_launch.cuh: every CUDA thread is a fiber, and fibers change where
// the kernel waits for others. The order in which they run can be turned round: kernels that forget
// to wait then differ. Waiting that cannot end is reported.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pclc_cuda.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

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

// Under AddressSanitizer fibers change by the compiler's own jumps: it takes each of the library's
// for the end of everything on the stack. Those of the compiler need a frame pointer.
#if defined(__SANITIZE_ADDRESS__)
#define PCLC_MARK(place) __builtin_setjmp(reinterpret_cast<void**>(place))
#define PCLC_JUMP(place) __builtin_longjmp(reinterpret_cast<void**>(place), 1)
#define PCLC_JUMPS __attribute__((noinline, no_sanitize("address", "undefined")))
#else
#define PCLC_MARK(place) _setjmp(place)
#define PCLC_JUMP(place) _longjmp(place, 1)
#define PCLC_JUMPS
#endif

struct Fiber {
  ucontext_t start;
  jmp_buf place;  // once it has started
  bool has_started = false;
  BlockState* block;
  int thread;
  bool is_done = false;
  const Gate* waits_for = nullptr;
  uint64_t opened_before = 0;
  bool has_arrived_at_cluster = false;
  uint64_t cluster_opened_before = 0;
  std::vector<std::pair<void*, const void*>> copies;  // that it has not waited for
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

PCLC_JUMPS inline void leave_fiber([[maybe_unused]] bool for_ever) {
  Fiber& fiber = *machine.current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fiber.fake_stack, machine.scheduler_bottom,
                                 machine.scheduler_size);
#endif
  if (PCLC_MARK(fiber.place) == 0) PCLC_JUMP(machine.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

PCLC_JUMPS inline void enter_fiber(Fiber& fiber, [[maybe_unused]] size_t number) {
  machine.current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&machine.scheduler_stack, machine.stacks[number].get(), kStack);
#endif
  if (PCLC_MARK(machine.scheduler) == 0) {
    if (fiber.has_started) PCLC_JUMP(fiber.place);
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
      if (fiber.is_done && !fiber.copies.empty()) fail("a thread ends without its copies");
    }
    if (!has_moved) fail("threads wait for ever");
  }
}

}  // namespace emulated

template <class Call>
int64_t room_for(const Purpose&, Kernel<Call>, const Shape& shape, const CudaPlace&) {
  if (shape.shared_bytes > emulated::gpu.shared_bytes) return 0;
  return shape.cluster > 1 ? emulated::gpu.clusters : emulated::gpu.blocks;
}

inline uint32_t* counter_for(const Purpose&, const CudaPlace&) { return &emulated::gpu.counter; }

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

}  // namespace pclc::device
