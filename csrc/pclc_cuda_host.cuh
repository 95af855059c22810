// Starting kernels, and what a device has room for.

#pragma once

#include <cuda_runtime.h>

#include <string>

#include "pclc_cuda.h"

namespace pclc::device {

// How a kernel is started; `Purpose` is what an error says it was started for.
struct Shape {
  int threads;
  int cluster = 1;  // blocks
  size_t shared_bytes = 0;
};

struct Purpose {
  const char* kernel;
  int64_t rows, classes;
};
std::string describe(const Purpose& purpose);

template <class Call>
using Kernel = void (*)(Call);

// Makes a device the current one, and the one before it again. Where CUDA knows no device at all
// nothing happens: whatever is started then fails, and can say what it was.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = -1;
};

// Throws unless `error` is cudaSuccess. `what` was tried.
void check(cudaError_t error, const std::string& what);

// How many blocks of a kernel, or clusters of blocks, the device runs at a time; 0 where it runs
// none. The device is asked once.
int64_t room_for(const Purpose& purpose, const void* kernel, const Shape& shape, int device);

template <class Call>
int64_t room_for(const Purpose& purpose, Kernel<Call> kernel, const Shape& shape,
                 const CudaPlace& place) {
  return room_for(purpose, reinterpret_cast<const void*>(kernel), shape, place.device);
}

// A counter that is 0, and is the call's alone until its kernel has left it at 0.
uint32_t* counter_for(const Purpose& purpose, const CudaPlace& place);

template <class... Parameters, class... Arguments>
void launch(const Purpose& purpose, void (*kernel)(Parameters...), int64_t blocks,
            const Shape& shape, const CudaPlace& place, const Arguments&... arguments) {
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(place.stream);
  config.attrs = &cluster;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  const cudaError_t error =
      cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  if (error != cudaSuccess) check(error, describe(purpose));
}

}  // namespace pclc::device
