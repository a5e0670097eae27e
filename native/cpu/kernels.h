#pragma once

namespace isopolicy {

class Registry;
void registerCpuKernels(Registry& registry);

}  // namespace isopolicy
