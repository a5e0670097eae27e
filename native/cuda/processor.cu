// Runs commands on the GPU: each is launched on one CUDA stream; a recording becomes a graph at its second
// replay.
#include <memory>
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/processor.h"
#include "cuda/cuda.h"
#include "cuda/launcher.h"

namespace isopolicy::cuda {
namespace {

class DeviceMemory final : public MemorySource {
 public:
  void* take(size_t bytes) override {
    void* block = nullptr;
    if (cudaMalloc(&block, bytes) == cudaSuccess) return block;
    cudaGetLastError();
    return nullptr;
  }
  void give(void* block) override { cudaFree(block); }
  double freeBytes() override {
    size_t free = 0, total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? double(free) : -1;
  }
};

// What is kept with a recording.
struct Graph {
  explicit Graph(std::shared_ptr<Launcher> launcher) : launcher(std::move(launcher)) {}
  Graph(const Graph&) = delete;
  ~Graph() {
    // One that still runs is freed when it is done.
    if (graph != nullptr) cudaGraphExecDestroy(graph);
    launcher->checks().release(slots);
  }
  std::shared_ptr<Launcher> launcher;
  cudaGraphExec_t graph = nullptr;
  std::vector<int> slots;
};

class CudaProcessor : public Processor {
 public:
  void run(const Command& command, uint64_t sequence) override {
    Launcher& gpu = launcher();
    gpu.begin(command.op(), sequence);
    command.run(&gpu);
  }

  bool replay(Recording& recording, uint64_t sequence) override {
    Launcher& gpu = launcher();
    auto graph = std::static_pointer_cast<Graph>(recording.prepared);
    if (!graph) {
      // The first time, command by command: kernels are loaded and scratch memory is found.
      recording.prepared = std::make_shared<Graph>(launcher_);
      return false;
    }
    if (graph->graph == nullptr) {
      if (!gpu.checks().roomToKeep(recording.commands.size())) return false;
      capture(recording, *graph, sequence);
    }
    gpu.checks().relaunched(graph->slots, sequence);
    expectSuccess(cudaGraphLaunch(graph->graph, gpu.stream()), "launching a graph");
    return true;
  }

  void finish() override { expectSuccess(cudaStreamSynchronize(launcher().stream()), "waiting for the GPU"); }

  void read(const std::vector<HostCopy>& copies) override {
    Launcher& gpu = launcher();
    gpu.checks().queueLook();
    for (const HostCopy& copy : copies) {
      if (copy.bytes == 0) continue;
      expectSuccess(cudaMemcpyAsync(copy.to, copy.from, copy.bytes, cudaMemcpyDeviceToHost, gpu.stream()),
                    "reading memory");
    }
    finish();
    gpu.checks().look();
  }

  void resize(int) override {}

 private:
  // Made at the first command, on the native thread: to start CUDA takes a while.
  Launcher& launcher() {
    if (!launcher_) {
      expectSuccess(cudaSetDevice(0), "choosing the GPU");
      launcher_ = std::make_shared<Launcher>();
    }
    return *launcher_;
  }

  void capture(Recording& recording, Graph& graph, uint64_t sequence) {
    Launcher& gpu = *launcher_;
    gpu.checks().release(graph.slots);  // of a time before that failed
    graph.slots.clear();
    // Relaxed: a first time that was cut short may have left scratch memory to be found, which may be now.
    expectSuccess(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeRelaxed), "capturing a graph");
    cudaGraph_t captured = nullptr;
    gpu.checks().keepIn(&graph.slots);
    std::string failure;
    try {
      for (const Command& command : recording.commands) {
        gpu.begin(command.op(), sequence);
        command.run(&gpu);
      }
    } catch (const std::exception& error) {
      failure = error.what();
    }
    gpu.checks().keepIn(nullptr);
    const cudaError_t ended = cudaStreamEndCapture(gpu.stream(), &captured);
    if (!failure.empty()) {
      cudaGetLastError();  // that of the end, too
      if (captured != nullptr) cudaGraphDestroy(captured);
      throw DeviceError(failure);
    }
    expectSuccess(ended, "capturing a graph");
    const cudaError_t made = cudaGraphInstantiate(&graph.graph, captured, 0);
    cudaGraphDestroy(captured);
    expectSuccess(made, "making a graph");
  }

  std::shared_ptr<Launcher> launcher_;
};

}  // namespace

static void expectDevice() {
  std::string problem;
  if (devices(problem).empty()) throw DeviceError("[device] " + problem);
}

static MemorySource& memory() {
  static DeviceMemory source;
  expectDevice();
  return source;
}

Driver driver() {
  return {memory, [](int) -> std::unique_ptr<Processor> { return std::make_unique<CudaProcessor>(); }};
}

}  // namespace isopolicy::cuda
