// TMA: tensor maps.
#include "cuda/emulation/runtime.h"

namespace isopolicy::emulation {

void* tensorMapEncoder() { return nullptr; }

}  // namespace isopolicy::emulation
