// Runs commands on the CPU: each kernel shares out its work among the workers.
#pragma once
#include <cstring>
#include <memory>
#include <vector>

#include "core/host_memory.h"
#include "core/processor.h"
#include "core/workers.h"

namespace isopolicy {

class CpuProcessor : public Processor {
 public:
  explicit CpuProcessor(int threads) : workers_(threads) {}
  void run(const Command& command, uint64_t) override { command.run(&workers_); }
  bool replay(Recording&, uint64_t) override { return false; }
  void finish() override {}
  void read(const std::vector<HostCopy>& copies) override {
    for (const HostCopy& copy : copies)
      if (copy.bytes > 0) std::memcpy(copy.to, copy.from, copy.bytes);
  }
  void resize(int threads) override { workers_.resize(threads); }

 private:
  Workers workers_;
};

inline Driver cpuDriver() {
  return {hostMemory,
          [](int threads) -> std::unique_ptr<Processor> { return std::make_unique<CpuProcessor>(threads); }};
}

}  // namespace isopolicy
