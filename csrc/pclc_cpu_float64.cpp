// The CPU kernels for float64 logits.

#include "pclc_cpu_loops.h"

namespace pclc {
PCLC_DEFINE_CPU_KERNELS(Float64)
}  // namespace pclc
