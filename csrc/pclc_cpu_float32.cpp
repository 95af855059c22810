// The CPU kernels for float32 logits.

#include "pclc_cpu_loops.h"

namespace pclc {
PCLC_DEFINE_CPU_KERNELS(Float32)
}  // namespace pclc
