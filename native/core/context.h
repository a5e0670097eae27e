// What one JavaScript environment owns: its tensors, their memory, its command stream and its settings.
#pragma once
#include <memory>

#include "core/allocator.h"
#include "core/registry.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace isopolicy {

class Context {
 public:
  Context();
  ~Context();
  // Ends the native threads; nothing that is queued runs any more.
  void stop() { stream->stop(); }

  // A new tensor of the given type and shape; its contents are whatever the memory held (all ones in every
  // bit, which is NaN, where ISOPOLICY_POISON=1).
  double allocate(DType dtype, const Shape& shape, Tensor& out);
  // Another window on the same memory.
  double view(const Tensor& base, int64_t byteOffset, DType dtype, const Shape& shape, Tensor& out);
  // Returns cached memory to the system, in stream order: queued commands may still use it.
  void trim();
  // Everything a queued command touches stays alive for as long as a recording may replay it.
  void retainForRecording(const Tensor& tensor);
  void releaseRecording(Recording& recording);

  CachingAllocator allocator;
  TensorTable tensors;
  std::unique_ptr<Stream> stream;
  VectorLevel vectorLevel;

 private:
  // New memory, or while recording preferably some that the sequence is done with.
  Storage* newStorage(size_t bytes);
  bool poison_;
};

// The highest level that this processor has.
VectorLevel supportedVectorLevel();
// That, or what ISOPOLICY_VECTOR_LEVEL (portable, avx2, avx512, avx512bf16, amx) lowers it to.
VectorLevel detectVectorLevel();
VectorLevel parseVectorLevel(const std::string& name);
const char* nameOf(VectorLevel level);
int defaultThreads();

}  // namespace isopolicy
