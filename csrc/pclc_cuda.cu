// The CUDA kernels' host side: what is asked of the device, and the choice by storage type.

#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>
#include <tuple>

#include "pclc_cuda.h"
#include "pclc_cuda_host.cuh"
#include "pclc_cuda_launches.h"

namespace pclc {
namespace device {

// Calls take these in turns, those that a graph captures from a ring of their own: it keeps the
// counter for as long as it is replayed. Two calls meet in one only where a ring's length of calls
// is in flight, or where two graphs that are captured so many calls apart run at one time.
constexpr uint32_t kEagerCounters = 1u << 16, kCapturedCounters = 1u << 18;
__device__ uint32_t counters[kEagerCounters + kCapturedCounters];

constexpr size_t kManyShared = 4096;  // more than the sums of threads take

__global__ void ask_for_code() {}  // is there where any kernel is

std::string describe(const Purpose& purpose) {
  return std::string("CUDA kernel ") + purpose.kernel + " for " + std::to_string(purpose.rows) +
         " rows of " + std::to_string(purpose.classes) + " classes";
}

void check(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // forgets it, unless nothing can run any more
  throw std::runtime_error(what + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")");
}

DeviceGuard::DeviceGuard(int device) {
  int current = -1;
  if (cudaGetDevice(&current) != cudaSuccess || current == device) return;
  check(cudaSetDevice(device), "cudaSetDevice");
  before_ = current;
}

DeviceGuard::~DeviceGuard() {
  if (before_ >= 0) cudaSetDevice(before_);
}

namespace {

int attribute(const std::string& what, cudaDeviceAttr name, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, device), what);
  return value;
}

int64_t ask_for_room(const std::string& what, const void* kernel, const Shape& shape, int device) {
  const int most_shared = attribute(what, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (shape.shared_bytes > static_cast<size_t>(most_shared)) return 0;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared),
        what);
  if (shape.shared_bytes >
      kManyShared) {  // what the cache leaves of it decides how many blocks run
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                               cudaSharedmemCarveoutMaxShared),
          what);
  }
  int count = 0;
  if (shape.cluster == 1) {
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, kernel, shape.threads,
                                                        shape.shared_bytes),
          what);
    return int64_t(count) * attribute(what, cudaDevAttrMultiProcessorCount, device);
  }
  if (attribute(what, cudaDevAttrClusterLaunch, device) == 0) return 0;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.cluster));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.attrs = &cluster;
  config.numAttrs = 1;
  if (cudaOccupancyMaxActiveClusters(&count, kernel, &config) == cudaSuccess) return count;
  cudaGetLastError();  // a part of a GPU that has no room for such a cluster
  return 0;
}

}  // namespace

int64_t room_for(const Purpose& purpose, const void* kernel, const Shape& shape, int device) {
  static std::mutex mutex;
  static std::map<std::tuple<const void*, int, int, int, size_t>, int64_t> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto key =
      std::make_tuple(kernel, device, shape.threads, shape.cluster, shape.shared_bytes);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  return known[key] = ask_for_room(describe(purpose), kernel, shape, device);
}

uint32_t* counter_for(const Purpose& purpose, const CudaPlace& place) {
  static std::atomic<uint32_t> eager{0}, captured{0};
  static std::mutex mutex;
  static std::map<int, uint32_t*> by_device;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(static_cast<cudaStream_t>(place.stream), &status) != cudaSuccess) {
    cudaGetLastError();  // another stream captures, and this is the default stream
  }
  const bool captures = status == cudaStreamCaptureStatusActive;
  const std::lock_guard<std::mutex> lock(mutex);
  uint32_t*& first = by_device[place.device];
  if (!first) {
    void* address = nullptr;
    check(cudaGetSymbolAddress(&address, counters), describe(purpose));
    first = static_cast<uint32_t*>(address);
  }
  return captures ? first + kEagerCounters + captured++ % kCapturedCounters
                  : first + eager++ % kEagerCounters;
}

namespace {

// Calls `run` with the storage type of a call.
template <class Run>
void with_type(DType dtype, const Run& run) {
  switch (dtype) {
    case DType::kFloat32: return run(Launches<Float32>{});
    case DType::kBFloat16: return run(Launches<BFloat16>{});
    case DType::kFloat16: return run(Launches<Float16>{});
    case DType::kFloat64: return run(Launches<Float64>{});
  }
}

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

}  // namespace
}  // namespace device

void forward_cuda(const Problem& problem, const Outputs& outputs, void* workspace,
                  const CudaPlace& place) {
  const device::DeviceGuard guard(place.device);
  device::with_type(problem.dtype,
                    [&](auto launches) { launches.forward(problem, outputs, workspace, place); });
}

void backward_cuda(const Problem& problem, const void* row_stats, const GradOutput& grad_output,
                   bool has_unit_grad, void* grad, const CudaPlace& place) {
  const device::DeviceGuard guard(place.device);
  device::with_type(problem.dtype, [&](auto launches) {
    launches.backward(problem, row_stats, grad_output, has_unit_grad, grad, place);
  });
}

std::string cuda_unavailable() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return "";
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) return "it runs on NVIDIA GPUs, and there is no NVIDIA driver";
    return "it was built with CUDA " + device::version(CUDART_VERSION) +
           " and the NVIDIA driver is for CUDA " + device::version(driver) +
           "; update the driver or build with an older CUDA";
  }
  return std::string("it runs on NVIDIA GPUs: ") + cudaGetErrorString(error);
}

std::string cuda_unsupported(int device) {
  const device::DeviceGuard guard(device);
  cudaFuncAttributes attributes{};
  const auto* kernel = reinterpret_cast<const void*>(&device::ask_for_code);
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error == cudaSuccess) return "";
  cudaGetLastError();
  const std::string what = "CUDA device " + std::to_string(device);
  const int major = device::attribute(what, cudaDevAttrComputeCapabilityMajor, device);
  const int minor = device::attribute(what, cudaDevAttrComputeCapabilityMinor, device);
  return "it was not built for this GPU, of compute capability " + std::to_string(major) + "." +
         std::to_string(minor) + " (" + cudaGetErrorString(error) + ")";
}

}  // namespace pclc
