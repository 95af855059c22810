// The CPU kernels for float16 logits.

#include "pclc_cpu_loops.h"

namespace pclc {
PCLC_DEFINE_CPU_KERNELS(Float16)
}  // namespace pclc
