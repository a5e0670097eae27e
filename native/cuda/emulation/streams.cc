// The emulated runtime API: streams, events, graphs, kernels' attributes. All work is done when it is
// enqueued.
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "cuda/emulation/runtime.h"

using Work = std::vector<std::function<void()>>;

struct CUstream_st {
  bool capturing = false;
  bool invalid = false;  // the capture, by a call that it does not allow
  Work captured;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
  bool recorded = false;
};
struct CUgraph_st {
  Work work;
};
struct CUgraphExec_st {
  Work work;
};

namespace isopolicy::emulation {
namespace {
// Captures of this thread in a mode that forbids calls which may wait for the device.
thread_local std::set<cudaStream_t> strictCaptures;
std::mutex attributesLock;
std::map<const void*, size_t> sharedLimits;
}  // namespace

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream != nullptr && stream->capturing) {
    stream->captured.push_back(std::move(work));
  } else {
    work();
  }
  return cudaSuccess;
}

cudaError_t refuseInCapture() {
  for (cudaStream_t stream : strictCaptures) stream->invalid = true;
  return setError(!strictCaptures.empty() ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}

size_t sharedLimitOf(const void* kernel) {
  const std::lock_guard lock(attributesLock);
  const auto found = sharedLimits.find(kernel);
  return found == sharedLimits.end() ? kDefaultSharedBytes : found->second;
}

}  // namespace isopolicy::emulation

using namespace isopolicy::emulation;

static bool capturing(cudaStream_t stream) { return stream != nullptr && stream->capturing; }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!capturing(stream)) return cudaSuccess;
  stream->invalid = true;
  return setError(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }
cudaError_t cudaDeviceSynchronize() { return refuseInCapture(); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  return enqueue(stream, [=] { function(data); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (capturing(stream)) return cudaSuccess;  // orders work within the graph, which is in order
  event->time = std::chrono::steady_clock::now();
  event->recorded = true;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return refuseInCapture(); }
cudaError_t cudaEventQuery(cudaEvent_t) { return refuseInCapture(); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  if (!start->recorded || !end->recorded) return setError(cudaErrorInvalidResourceHandle);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (stream == nullptr) return setError(cudaErrorStreamCaptureUnsupported);
  if (stream->capturing) return setError(cudaErrorIllegalState);
  stream->capturing = true;
  stream->invalid = false;
  stream->captured.clear();
  if (mode != cudaStreamCaptureModeRelaxed) strictCaptures.insert(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!capturing(stream)) return setError(cudaErrorIllegalState);
  stream->capturing = false;
  strictCaptures.erase(stream);
  const Work captured = std::exchange(stream->captured, {});
  if (stream->invalid) return setError(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st{captured};
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = !capturing(stream) ? cudaStreamCaptureStatusNone
            : stream->invalid  ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return enqueue(stream, [work = exec->work] {
    for (const auto& step : work) step();
  });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->sharedSizeBytes = 0;  // the compiler of the emulated build does not tell
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || size_t(value) > sharedMemoryOptin()) return setError(cudaErrorInvalidValue);
  const std::lock_guard lock(attributesLock);
  sharedLimits[function] = size_t(value);
  return cudaSuccess;
}
